"""A Context without a worker: results in a dictionary, calls answered by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.inference import ChatPrompt, TextPrompt, Usage
from llmos.abi.program import Answer, Generate, Interrupted
from llmos.errors import from_info

Rows = dict[tuple[str, str], tuple[int, bytes]]


def echo(request: Generate) -> Answer:
    """The last message, or the text, comes back."""
    prompt = request.prompt
    text = ""
    if isinstance(prompt, ChatPrompt):
        text = prompt.messages[-1]["content"]
    elif isinstance(prompt, TextPrompt):
        text = prompt.text
    return Answer(
        request_id="req_0123",
        model=request.model,
        text=text,
        token_ids=[1, 2],
        finish_reason="stop",
        usage=Usage(3, 2),
        created_ns=1_700_000_000_000_000_000,
    )


class FakeContext:
    """`rows` may be shared by attempts: then the next one knows what the last one did."""

    job_id = "job_7"

    def __init__(
        self,
        scratch: Path,
        inputs: Mapping[str, Any],
        files: Mapping[str, str] | None = None,
        *,
        answer: Callable[[Generate], Answer] = echo,
        rows: Rows | None = None,
        attempt: int = 1,
        resumed_from: str | None = None,
    ) -> None:
        self.inputs = inputs
        self.files = files or {}
        self.scratch = str(scratch)
        self.attempt = attempt
        self.resumed_from = resumed_from
        self.rows = {} if rows is None else rows
        self.done_keys = frozenset(self.rows)
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.told: list[tuple[float, float, str, dict[str, int]]] = []
        self.checkpoints: list[bytes] = []
        self.asked: dict[type, Callable[[Any], Any]] = {}
        self.num_asked = 0
        self.num_gathered = 0
        self.most_open = 0
        self.should_yield = False
        self.should_stop = False
        self.on_answer: Callable[[int], None] = lambda number: None
        self.answer = answer

    def stop(self) -> None:
        self.should_stop = self.should_yield = True

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        self.events.append((kind, value))

    def progress(
        self,
        done: float,
        total: float = 0.0,
        unit: str = "",
        what: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.told.append((done, total, what, dict(counts or {})))

    def result(self, stream: str, key: str, order: int, body: bytes) -> None:
        self.rows.setdefault((stream, key), (order, body))

    def gather(self, stream: str) -> str:
        self.num_gathered += 1
        path = Path(self.scratch) / f"gathered-{self.num_gathered}"
        path.write_bytes(b"".join(line + b"\n" for line in self.lines(stream)))
        return str(path)

    def call(self, request: Generate) -> Answer:
        answer = self.answer(request)
        if answer.error is not None:
            raise from_info(answer.error)
        return answer

    def ask(self, call: msgspec.Struct) -> Any:
        """By `asked`, a function for each type of call."""
        return self.asked[type(call)](call)

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        """Newest first, so that nobody relies on an order."""
        source = iter(requests)
        under_way: list[tuple[Any, Generate]] = []
        while True:
            while len(under_way) < window and not self.should_stop:
                item = next(source, None)
                if item is None:
                    break
                under_way.append(item)
            self.most_open = max(self.most_open, len(under_way))
            if self.should_stop:
                raise Interrupted("stopped")
            if not under_way:
                return
            key, request = under_way.pop()
            self.num_asked += 1
            answer = self.answer(request)
            self.on_answer(self.num_asked)
            yield key, answer

    def checkpoint(self, path: str) -> None:
        self.checkpoints.append((Path(self.scratch) / path).read_bytes())

    def lines(self, stream: str) -> list[bytes]:
        """The stream's file, as the end of the job would make it."""
        rows = [row for (name, _), row in self.rows.items() if name == stream]
        return [body for _, body in sorted(rows)]
