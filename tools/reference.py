"""The pages of reference that come from the code: the command line, the API, the Python client."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

CLI = """# The command line

Every command as `--help` has it. What is meant for programs is printed with `--json`; the exit
code is 0 when all went well, 1 when something failed, 2 when the command was not understood.
"""

PYTHON = """# The Python client

`llmos.Client` and `llmos.AsyncClient` have the same calls; those of the second are awaited. The
package `llmos.sdk` can be used without a server on the machine.

## Client
"""


def cli() -> str:
    """Every command with its arguments, options and examples."""
    from typer.main import get_command

    from llmos.cli.main import app

    root = get_command(app)
    context = root.make_context("llmos", [], resilient_parsing=True)
    lines = [CLI]
    for path, command, inner in _commands(root, context):
        lines += _command(path, command, inner)
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Depth first, in the order of `--help`: the path, the command, its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        inner = type(context)(command, info_name=name, parent=context)
        yield inner.command_path, command, inner
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner)


def _command(path: str, command: Any, context: Any) -> list[str]:
    is_group = hasattr(command, "list_commands")
    lines = [f"{'##' if path.count(' ') == 1 else '###'} {path}", "", _prose(command.help), ""]
    if not is_group:
        usage = " ".join(command.collect_usage_pieces(context))
        lines += ["```text", f"{path} {usage}", "```", ""]
    records = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [r for r in records if r is not None and not r[0].startswith("--help")]
    if rows:
        lines += ["| argument, option | what |", "|---|---|"]
        lines += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows]
        lines.append("")
    if command.epilog:
        examples = [line.strip() for line in command.epilog.splitlines()[2:]]
        lines += ["```text", *examples, "```", ""]
    return lines


def _prose(text: str | None) -> str:
    """A docstring's paragraphs, with one mark of the library taken out."""
    return inspect.cleandoc(text or "").replace("\b\n", "")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def python() -> str:
    """`llmos.Client`: every method with its signature and docstring."""
    from llmos.sdk import Client, Stream
    from llmos.sdk.groups import Group

    with Client("http://127.0.0.1:8400", "key") as client:
        groups = {name: value for name, value in vars(client).items() if isinstance(value, Group)}
        lines = [
            PYTHON,
            *_callable("Client", Client.__init__, inspect.getdoc(Client)),
            *_methods("client", client),
        ]
        for name, group in groups.items():
            lines += [f"## client.{name}", "", *_methods(f"client.{name}", group)]
    lines += ["## Stream", "", inspect.getdoc(Stream) or "", ""]
    return "\n".join(lines).rstrip() + "\n"


def _methods(prefix: str, owner: Any) -> Iterator[str]:
    """Public ones, in the order they are written."""
    for name in _public(type(owner)):
        method = getattr(owner, name)
        if callable(method):
            yield f"### {prefix}.{name}"
            yield ""
            yield from _callable(f"{prefix}.{name}", method, inspect.getdoc(method))


def _public(kind: type) -> list[str]:
    names = [name for base in reversed(kind.__mro__) for name in vars(base)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _callable(shown: str, function: Callable[..., Any], doc: str | None) -> Iterator[str]:
    yield "```text"
    yield _call(shown, inspect.signature(function))
    yield "```"
    yield ""
    yield doc or ""
    yield ""


def _call(shown: str, signature: inspect.Signature) -> str:
    """On one line, or a parameter on each where that is long."""
    parameters = [p for name, p in signature.parameters.items() if name != "self"]
    answer = re.sub(r"^Call\[(.*)\]$", r"\1", _type(signature.return_annotation))
    answer = "" if answer in {"None", ""} else f" -> {answer}"
    parts, keyword_only = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        parts.append(_parameter(parameter))
    line = f"{shown}({', '.join(parts)}){answer}"
    if len(line) <= 96:
        return line
    return "\n".join([f"{shown}(", *(f"    {part}," for part in parts), f"){answer}"])


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = parameter.default
        text += f" = {getattr(default, '__name__', None) or repr(default)}"
    return text


def _type(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
