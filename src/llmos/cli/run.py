"""`run`: talk to a model, or ask it once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.abi.registry import ModelVersion
    from llmos.sdk import Chunk, Client, Stream

SOURCES = ("hf:", "file:")


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="name[:version or alias]; of the catalogue, hf:..., file:... or a path: pulled."
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(help="Ask once; without it, a conversation begins.")
    ] = None,
    *,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it is, without a chat template.")
    ] = False,
    json: Json = False,
) -> None:
    """Talk to a model, or ask it once.

    With a prompt, or one in a pipe, it answers and ends. A pipe's text is the prompt, or is put
    after the one given. A model without a chat template continues the text as it is.
    """
    from llmos.cli.answer import Answer, ask, print_answer, print_json_answer
    from llmos.cli.session import connect

    question = read_question(prompt)
    if question is None and json:
        raise typer.BadParameter("--json wants a prompt")
    given = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    sampling = {name: value for name, value in given.items() if value is not None}
    with connect(start=True) as client:
        version = resolve(client, model, as_json=json)
        is_raw = raw or not version.has_chat_template
        if question is None:
            from llmos.cli.chat import converse

            converse(client, version, system, sampling, is_raw=is_raw)
            return
        asked = question if is_raw else as_messages(system, question)
        if is_raw and system:
            asked = f"{system}\n{question}"

        def asking() -> Stream[Chunk]:
            return ask(client, version, asked, sampling)

        if json:
            print_json_answer(asking(), Answer(), version.ref)
        else:
            print_answer(asking, Answer(), f"waiting for {version.ref}")


def read_question(prompt: str | None) -> str | None:
    """The prompt, with what a pipe on stdin holds after it; None on a terminal without one."""
    from llmos.cli.config import LIMITS
    from llmos.errors import InvalidRequest, PayloadTooLarge

    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return prompt
    data = sys.stdin.buffer.read(LIMITS.max_stdin_bytes + 1)
    if len(data) > LIMITS.max_stdin_bytes:
        raise PayloadTooLarge(f"stdin holds more than {LIMITS.max_stdin_bytes} bytes")
    try:
        piped = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"stdin is not UTF-8 text: {error}") from error
    if not piped.strip():
        piped = ""
    if prompt is None and not piped:
        raise typer.BadParameter("stdin is empty and no prompt is given")
    return "\n".join(part for part in (prompt, piped.removesuffix("\n")) if part)


def as_messages(system: str | None, question: str) -> list[dict[str, Any]]:
    """A conversation of one question."""
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": question}]


def resolve(client: Client, model: str, *, as_json: bool) -> ModelVersion:
    """The version meant. A source is pulled unless a model of that source is here."""
    from llmos.cli.models import as_source, find_known, pull_model
    from llmos.errors import NotFound

    source = as_source(model)
    if not source.startswith(SOURCES):
        try:
            return client.models.show(model)
        except NotFound:
            known = find_known(model)
            if known is None:
                raise
            return pull_model(client, known.source, known.name, as_json=as_json)
    if source == model or not _is_name(model):
        return find_pulled(client, source) or pull_model(client, source, None, as_json=as_json)
    try:
        return client.models.show(model)
    except NotFound:
        return pull_model(client, source, None, as_json=as_json)


def _is_name(text: str) -> bool:
    """A model's name can be a folder's too: then the model is meant if there is one."""
    return not text.startswith((".", "/", "~"))


def find_pulled(client: Client, source: str) -> ModelVersion | None:
    """The newest version pulled from this hub source; a folder may have changed since."""
    if not source.startswith("hf:"):
        return None
    found = [
        m for m in client.models.list() if m.source == source or m.source.startswith(f"{source}@")
    ]
    return max(found, key=lambda m: m.created_ns, default=None)
