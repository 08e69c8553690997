"""Write the generated pages of `docs/`: `python tools/docs.py [--check]`.

`docs/configuration.md` comes from the settings, `docs/benchmarks.md` from the results,
`docs/metrics.md` from the metrics, `docs/recipe.md` from the fields of a recipe, `docs/cli.md`,
`docs/api.md` and `docs/client.md` from commands, routes and the client, Grafana's dashboard from
`tools/dashboard.py`. With `--check` nothing is written; a page that is not fresh is
a failure.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pydantic
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # it is run as a file
NOTE = "<!-- Written by `make docs`; do not edit. -->\n\n"


class Key(msgspec.Struct, frozen=True):
    """One setting: `name` as in `section.key`."""

    name: str
    kind: str
    default: str
    description: str


def keys(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every leaf of a settings model, sections flattened."""
    for name, info in model.model_fields.items():
        inner = section(info.annotation)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=False)
            yield Key(
                prefix + name,
                kind(info.annotation),
                "" if default is PydanticUndefined or default is None else plain(default),
                info.description or "",
            )


def section(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The model behind a field that is a section of its own."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return None


def kind(annotation: Any) -> str:
    """A type as a reader of the page wants it: `int`, `str or none`."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(part) for part in typing.get_args(annotation))
    if origin is typing.Literal:
        return " or ".join(f'"{part}"' for part in typing.get_args(annotation))
    if origin is typing.Annotated:
        return kind(typing.get_args(annotation)[0])
    if origin is not None:
        inner = ", ".join(kind(part) for part in typing.get_args(annotation))
        return f"{kind(origin)} of {inner}"
    if annotation is type(None):
        return "none"
    return str(getattr(annotation, "__name__", annotation))


def plain(value: Any) -> str:
    """A default as it would stand in a toml file."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def configuration() -> str:
    """The page of every setting, by section."""
    from llmos.settings import Settings

    by_section: dict[str, list[Key]] = {}
    for key in keys(Settings):
        by_section.setdefault(key.name.rpartition(".")[0], []).append(key)
    lines = [
        "# Configuration\n",
        "A setting is looked up in this order, and the first that has it wins:\n",
        "1. a flag of the command; `llmos serve --set section.key=value` sets any of them",
        "2. the environment: `LLMOS_SECTION__KEY`",
        "3. `llmos.toml` in the working folder",
        "4. `llmos/llmos.toml` in the user's configuration folder, `~/.config`",
        "5. the default below\n",
        "An unknown key is an error. `llmos config show --origin` prints every value with the",
        "place it came from. Units are part of the name: `_s` seconds, `_ms` milliseconds,",
        "`_bytes` bytes.\n",
    ]
    for name, found in by_section.items():
        lines += [f"## {name or 'top level'}\n", "| key | type | default | meaning |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {key.kind} | {f'`{key.default}`' if key.default else ''} "
            f"| {key.description.replace('|', '/')} |"
            for key in found
        ]
        lines.append("")
    return NOTE + "\n".join(lines).rstrip() + "\n"


def number(value: float | None) -> str:
    """A figure of a row, or nothing."""
    return "" if value is None else f"{value:,.10g}"


def benchmarks() -> str:
    """The page of every result, in order of name."""
    lines = [
        "# Measurements\n",
        "Each table is one result file of `benchmarks/results/`, made again by the command above",
        "it. `ratio` is ours / peer of runs made side by side, with its 95 % bootstrap interval;",
        "a row without a peer has the interval of its own value there. What was tried and did not",
        "help is in [log.md](log.md).\n",
    ]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = msgspec.json.decode(path.read_bytes())
        lines += [
            f"## {result['name']}\n",
            f"`{result['command']}`, {result['date'][:10]}, commit `{result['commit']}`,",
            f"on {result['machine']}.\n",
            "| figure | value | unit | peer | peer's value | ratio | low | high |",
            "|---|---:|---|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['figure']} | {number(row['value'])} | {row['unit']} | {row['peer'] or ''} "
            f"| {number(row['peer_value'])} | {number(row['ratio'])} | {number(row['low'])} "
            f"| {number(row['high'])} |"
            for row in result["rows"]
        ]
        lines += [f"\n{note}" for note in result.get("notes", ())]
        picture = path.with_suffix(".svg")
        if picture.exists():
            lines.append(f"\n![{result['name']}](../{picture.relative_to(ROOT).as_posix()})")
        lines.append("")
    return NOTE + "\n".join(lines).rstrip() + "\n"


def metrics() -> str:
    """The page of every metric."""
    from tools.metrics_page import page

    return NOTE + page()


def grafana() -> str:
    """The dashboard."""
    from tools.dashboard import dashboard

    return dashboard()


def recipe() -> str:
    """The page of every field of a recipe."""
    from llmos.programs.train.help import as_markdown

    lines = [
        "# Recipes",
        "",
        "Every field of a recipe, as `llmos train --help-recipe` has them. How it all works is in",
        "[train.md](train.md).",
        "",
        as_markdown(),
    ]
    return NOTE + "\n".join(lines) + "\n"


def cli() -> str:
    """The page of every command."""
    from tools import reference

    return NOTE + reference.cli()


def api() -> str:
    """The page of every route."""
    from tools.api_page import page

    return NOTE + page()


def python() -> str:
    """The page of the client."""
    from tools import reference

    return NOTE + reference.python()


def decisions() -> str:
    """The list of records of decisions."""
    lines = ["# Decisions", "", "What was decided that somebody may want to reverse, and why.", ""]
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return NOTE + "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "docs/configuration.md": configuration,
    "docs/benchmarks.md": benchmarks,
    "docs/metrics.md": metrics,
    "deploy/telemetry/grafana.json": grafana,
    "docs/recipe.md": recipe,
    "docs/cli.md": cli,
    "docs/api.md": api,
    "docs/client.md": python,
    "docs/adr/README.md": decisions,
}


def main(arguments: list[str]) -> int:
    """0 when every page is fresh, or has been written."""
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text)
    if stale and "--check" in arguments:
        print("not fresh, run `make docs`:", ", ".join(stale), file=sys.stderr)
        return 1
    print("written:" if stale else "all pages are fresh", ", ".join(stale))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
