"""One streamed answer: asked for, printed as it comes, timed."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llmos.cli.config import LIMITS
from llmos.cli.output import emit_json, note
from llmos.cli.progress import spinner
from llmos.cli.text import visible

if TYPE_CHECKING:
    from llmos.abi.inference import Usage
    from llmos.abi.registry import ModelVersion
    from llmos.sdk import Chunk, Client, Stream


@dataclasses.dataclass(slots=True)
class Answer:
    """What has come so far. Times are seconds on the monotonic clock."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    num_chunks: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    def take(self, chunk: Chunk, now_s: float) -> None:
        """Add a chunk to it."""
        if chunk.text:
            self.text += chunk.text
            self.num_chunks += 1
            self.first_s = self.first_s or now_s
            self.last_s = now_s
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage

    def speed_line(self) -> str:
        """`N tokens · x tok/s`, the speed without the wait for the first token."""
        num_tokens = self.usage.completion_tokens if self.usage else self.num_chunks
        spent_s = self.last_s - self.first_s
        if num_tokens < 2 or spent_s <= 0:
            return f"{num_tokens} tokens"
        return f"{num_tokens} tokens · {(num_tokens - 1) / spent_s:.1f} tok/s"


def ask(
    client: Client,
    model: ModelVersion,
    prompt: str | list[dict[str, Any]],
    sampling: dict[str, Any],
) -> Stream[Chunk]:
    """Messages go through the model's template, a text is continued as it is."""
    if isinstance(prompt, str):
        sampling = {**room_for(model, prompt), **sampling}
        return client.complete(model.ref, prompt, stream=True, **sampling)
    return client.chat(model.ref, prompt, stream=True, **sampling)


def room_for(model: ModelVersion, prompt: str) -> dict[str, int]:
    """How far to continue a text when nobody says: OpenAI's 16 tokens are few for a person.

    A token is at least a byte, so what is asked for fits, or is left to the server.
    """
    room = model.context_length - len(prompt.encode(errors="replace")) - LIMITS.raw_spare_tokens
    num_tokens = min(LIMITS.raw_max_tokens, room)
    return {"max_tokens": num_tokens} if num_tokens > LIMITS.raw_spare_tokens else {}


def chunks_into(answer: Answer, stream: Stream[Chunk]) -> Iterator[Chunk]:
    """The stream's chunks, each taken into `answer`; the stream is left at the end."""
    with stream:
        for chunk in stream:
            answer.take(chunk, time.monotonic())
            yield chunk


def print_answer(asking: Callable[[], Stream[Chunk]], answer: Answer, waiting: str) -> None:
    """Ask, and write the text as it comes, harmless.

    `answer` has what came, also when interrupted. `waiting` is shown until the first piece is
    there: a model may have to be loaded for it.
    """
    try:
        with spinner(waiting):
            chunks = chunks_into(answer, asking())
            head = list(itertools.islice(chunks, 1))
        for chunk in itertools.chain(head, chunks):
            sys.stdout.write(visible(chunk.text))
            sys.stdout.flush()
    finally:
        if answer.text and not answer.text.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
    if sys.stderr.isatty():
        note(answer.speed_line())


def print_json_answer(stream: Stream[Chunk], answer: Answer, model: str) -> None:
    """A line per piece of text, exact, then one with how it ended."""
    for chunk in chunks_into(answer, stream):
        if chunk.text:
            emit_json({"text": chunk.text})
    emit_json({"model": model, "finish_reason": answer.finish_reason, "usage": answer.usage})
