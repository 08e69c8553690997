"""The fenced blocks of a page and the commands in them. Reads text; runs nothing.

What stands in an HTML comment right above a block tells how it is taken:

- `<!-- not run: REASON -->`: none of its commands is run
- `<!-- not run, COMMAND: REASON -->`: the commands that begin so are not; may stand several times
- `<!-- output -->`: it is what the block before prints, compared loosely
- `<!-- file: NAME -->`: it is the file NAME of the working folder

A block of YAML whose first line is a comment with a file's name is that file, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")
SHELLS = frozenset({"bash", "console", "sh", "shell"})

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_ABOVE = re.compile(r"(?:<!--(?:(?!-->).)*-->\s*)+\Z", re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:ya?ml|toml|py|csv|jsonl))\n")


class BadMarker(Exception):
    """A comment above a block that is meant for us and is none of those there are."""


@dataclass(frozen=True)
class Command:
    """What a shell is given: one line, or several that belong together."""

    text: str
    line: int
    excuse: str = ""
    """Why it is not run."""


@dataclass(frozen=True)
class Block:
    """One fence. `excuses` has a reason by the beginning of the commands it is for; "": all."""

    page: str
    language: str
    body: str
    line: int
    excuses: tuple[tuple[str, str], ...] = ()
    is_output: bool = False
    file: str = ""

    @property
    def is_shell(self) -> bool:
        return self.language in SHELLS and not self.file

    def commands(self) -> Iterator[Command]:
        """Those of a shell's block, in order; comments alone are none."""
        if not self.is_shell:
            return
        for line, text in _joined(self.body):
            if shlex.split(text, comments=True):
                yield Command(text, self.line + 1 + line, self._excuse(text))

    def _excuse(self, text: str) -> str:
        for beginning, reason in self.excuses:
            if text.startswith(beginning):
                return reason
        return ""


def pages(root: Path = ROOT) -> list[Path]:
    """What a reader is given to type in: the tutorial to a new server, then all that there is."""
    docs = root / "docs"
    tutorial = sorted(docs.glob("tutorial*.md"))
    rest = [*sorted(docs.glob("*.md")), *sorted(docs.glob("*/*.md"))]
    return [*tutorial, *(root / name for name in PAGES), *(p for p in rest if p not in tutorial)]


def blocks(path: Path, root: Path = ROOT) -> list[Block]:
    """The fences of a page in order. Raises BadMarker."""
    text, page = path.read_text("utf-8"), path.relative_to(root).as_posix()
    return [_block(text, page, match) for match in _FENCE.finditer(text)]


def _block(text: str, page: str, match: re.Match[str]) -> Block:
    indent, body = len(match["indent"]), match["body"]
    if indent:
        body = "\n".join(line[indent:] for line in body.split("\n"))
    line = text.count("\n", 0, match.start()) + 1
    excuses, is_output, file = [], False, ""
    above = _ABOVE.search(text, 0, match.start())
    for said in _COMMENT.findall(above[0]) if above else ():
        if said.startswith("not run"):
            excuses.append(_excuse(said, f"{page}:{line}"))
        elif said == "output":
            is_output = True
        elif said.startswith("file: "):
            file = said.removeprefix("file: ")
    if not file and (named := _FILE.match(body)) and match["language"] not in SHELLS:
        file = named[1]
    return Block(page, match["language"], body, line, tuple(excuses), is_output, file)


def _excuse(said: str, place: str) -> tuple[str, str]:
    made = re.fullmatch(r"not run(?:, (?P<command>.+?))?: (?P<reason>\S.*)", said, re.DOTALL)
    if made is None:
        raise BadMarker(f"{place}: {said}")
    return made["command"] or "", " ".join(made["reason"].split())


def _joined(body: str) -> Iterator[tuple[int, str]]:
    """Lines with those that go on: a backslash at the end, a quotation that is still open."""
    begun, start = "", 0
    for number, line in enumerate(body.splitlines()):
        start = start if begun else number
        begun += ("\n" if begun else "") + line.removeprefix("$ ")
        if not begun.endswith("\\") and _is_closed(begun):
            yield start, begun.strip()
            begun = ""
    if begun:
        raise BadMarker(f"a quotation without an end: {begun}")


def _is_closed(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
