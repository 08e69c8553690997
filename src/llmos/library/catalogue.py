"""The catalogue: well-known open models, by what they are for. Data of the package, checked when it
is read; whether a model is any good for a use is not its to say."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from llmos.errors import ModelNotFound

FILE = Path(__file__).with_name("models.yaml")

TASKS = (
    "generate",
    "classify",
    "embed",
    "rerank",
    "extract",
    "qa",
    "summarize",
    "translate",
    "zero-shot",
    "fill-mask",
    "transcribe",
    "speak",
    "classify-image",
    "detect",
    "caption",
)
"""What an entry may be for."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure that this project has measured itself, with a command that is in the repository."""

    texts: Text
    metric: Text
    value: float


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model. `source` is what `pull` takes; empty: it is bundled, under this name.

    `params` counts parameters, as the publisher states it (rounded). `languages` are ISO 639-1
    codes, `multi` for many. `memory_gb` is what its weights take in 16 bits, and a little more.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{1,60}$")]
    source: str
    tasks: Annotated[list[str], msgspec.Meta(min_length=1)]
    languages: Annotated[list[str], msgspec.Meta(min_length=1)]
    params: Annotated[int, msgspec.Meta(gt=0)]
    license: Text
    driver: Text
    about: Text
    measured: list[Measured] = []

    @property
    def memory_gb(self) -> float:
        return self.params * 2 * 1.2 / 1e9

    @property
    def hardware(self) -> str:
        """What it runs on with comfort, from its size alone."""
        if self.memory_gb < 2:
            return "any machine"
        if self.memory_gb < 8:
            return f"a processor with {self.memory_gb + 2:.0f} GB, or a small GPU"
        return f"a GPU with {self.memory_gb:.0f} GB, or int4 on a large machine"


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All of them, by name."""
    import yaml

    found = msgspec.convert(yaml.safe_load(FILE.read_text("utf-8")), list[Entry])
    return tuple(sorted(found, key=lambda entry: entry.name))


def find_entry(name: str) -> Entry | None:
    """By its name, or by its source."""
    wanted = name.lower()
    if not wanted:
        return None
    return next((e for e in entries() if wanted in (e.name, e.source.lower())), None)


def near(name: str) -> ModelNotFound:
    """To be raised for a name that is not there."""
    known = [entry.name for entry in entries()]
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    text = f"the catalogue has no {name[:80]!r}; `llmos models search` lists what it has"
    return ModelNotFound(text, details={"near": close})


def entry_of(name: str, source: str) -> Entry | None:
    """What is known of a model that is here, by where it came from or how it is called."""
    bare = source.partition("@")[0]
    return find_entry(bare) if bare.startswith("hf:") else find_entry(name)


def search(
    words: Iterable[str], task: str | None = None, language: str | None = None
) -> list[Entry]:
    """Entries in which every word is found, for this task and language; the smallest first."""
    wanted = [word.lower() for word in words]
    found = []
    for entry in entries():
        text = " ".join((entry.name, entry.source, entry.about, *entry.tasks, entry.license))
        if task is not None and task not in entry.tasks:
            continue
        if language is not None and not speaks(entry, language):
            continue
        if all(word in text.lower() for word in wanted):
            found.append(entry)
    return sorted(found, key=lambda entry: (entry.params, entry.name))


def speaks(entry: Entry, language: str) -> bool:
    """Many languages may well be this one, too."""
    return language in entry.languages or "multi" in entry.languages
