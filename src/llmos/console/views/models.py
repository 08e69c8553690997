"""What the page Models shows: versions by name, a model's card, known models that could be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmos.abi.registry import ModelVersion, PullProgress
from llmos.abi.syscall import ReplicaInfo
from llmos.errors import InvalidRequest
from llmos.library.catalogue import Entry, entry_of
from llmos.sdk.draw import amounts

MAX_KNOWN = 200
NS = 1_000_000_000


def source_of(text: str) -> str:
    """What was typed, as `pull` takes it: a name of the catalogue, `org/name`, or a full source.

    Raises InvalidRequest: a path would be one of the server's machine, which the console does not
    open.
    """
    text = text.strip()
    if not text:
        raise InvalidRequest("say what to pull, such as hf:org/name", param="source")
    if text.startswith(("file:", "upload:", "/", "~", ".")):
        raise InvalidRequest("files are pulled with `llmos pull file:PATH`", param="source")
    entry = entry_of(text, text)
    if entry is not None and entry.source:
        return entry.source
    if ":" not in text and text.count("/") == 1:
        return f"hf:{text}"
    return text


def params(num: int) -> str:
    """A count of parameters: 2.2 M, 7.6 B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num >= unit:
            return f"{num / unit:.3g} {name}"
    return str(num) if num else "–"


def ordered(models: Iterable[ModelVersion]) -> list[ModelVersion]:
    """By name, of each the newest version first."""
    return sorted(models, key=lambda m: (m.name, -m.created_ns))


def states(replicas: Iterable[ReplicaInfo]) -> dict[str, str]:
    """The state of each model that has a replica; a ready one counts before others."""
    found: dict[str, str] = {}
    for replica in replicas:
        if found.get(replica.model) != "ready":
            found[replica.model] = replica.state
    return found


def share(progress: PullProgress) -> float | None:
    """How far a pull is, 0 to 1; None where nobody knows."""
    return progress.done_bytes / progress.total_bytes if progress.total_bytes else None


def progress_words(progress: PullProgress) -> str:
    """What a pull is at."""
    amount = amounts.size(progress.done_bytes) if progress.done_bytes else ""
    if progress.total_bytes:
        amount += f" / {amounts.size(progress.total_bytes)}"
    return " · ".join(part for part in (progress.file, amount.strip()) if part)


def card(model: ModelVersion) -> list[tuple[str, str]]:
    """Facts by their texts' keys; what is not known is left out."""
    entry = entry_of(model.name, model.source)
    made = datetime.fromtimestamp(model.created_ns / NS, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts: list[tuple[str, str]] = [
        ("about", entry.about if entry else ""),
        ("kinds", ", ".join(model.kinds)),
        ("source", model.source),
        ("driver", model.driver),
        ("chosen", model.chosen),
        ("adapter", f"{model.adapter.method} / {model.adapter.base}" if model.adapter else ""),
        ("architecture", model.architecture),
        ("params", params(model.num_parameters) if model.num_parameters else ""),
        ("context", amounts.count(model.context_length) if model.context_length else ""),
        ("size", amounts.size(model.size_bytes) if model.size_bytes else ""),
        ("dtype", model.dtype),
        ("loaded", model.loaded_as),
        ("footprint", amounts.size(model.footprint_bytes) if model.footprint_bytes else ""),
        ("license", model.license or (entry.license if entry else "")),
        ("languages", ", ".join(entry.languages) if entry else ""),
        ("measured", _measured(entry)),
        ("egress", ", ".join(model.egress)),
        ("aliases", ", ".join(model.aliases)),
        ("digest", model.digest),
        ("made", made),
    ]
    return [(name, value) for name, value in facts if value]


def _measured(entry: Entry | None) -> str:
    found = entry.measured if entry else []
    return "; ".join(f"{m.metric} {m.value:g} ({m.texts})" for m in found)


def known(entries: Sequence[Entry], have: Iterable[ModelVersion]) -> list[dict[str, Any]]:
    """Rows of the catalogue, without what is here already."""
    here = {model.name for model in have} | {m.source.partition("@")[0] for m in have}
    return [
        {
            "id": entry.name,
            "cells": {
                "name": {"text": entry.name, "title": entry.source},
                "tasks": ", ".join(entry.tasks),
                "languages": ", ".join(entry.languages),
                "params": params(entry.params),
                "license": entry.license,
                "about": entry.about,
            },
        }
        for entry in entries
        if entry.source and entry.name not in here and entry.source not in here
    ][:MAX_KNOWN]


def row(model: ModelVersion, state: str, chip: Mapping[str, str]) -> dict[str, Any]:
    """A line of the table; `chip` is the state in words and its tone."""
    return {
        "id": model.ref,
        "cells": {
            "model": {"text": model.ref, "title": model.digest},
            "state": dict(chip) if state else "–",
            "kinds": ", ".join(model.kinds),
            "driver": model.driver,
            "params": params(model.num_parameters),
            "size": amounts.size(model.size_bytes) if model.size_bytes else "–",
            "context": amounts.count(model.context_length) if model.context_length else "–",
            "dtype": model.dtype or "–",
            "license": model.license or "–",
        },
    }
