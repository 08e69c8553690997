"""How a sentence-transformers folder says that hidden states become one vector. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import ModelRejected

_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


class Pooling(msgspec.Struct, frozen=True):
    """Defaults of a folder; a request may say otherwise."""

    mode: str = "mean"
    normalize: bool = True


def read_pooling(folder: Path) -> Pooling:
    """Of a folder without `modules.json`, the mean, normalized. Raises ModelRejected."""
    if not (folder / "modules.json").is_file():
        return Pooling()
    modules = _read(folder / "modules.json")
    types = [str(m.get("type", "")).rpartition(".")[2] for m in modules if isinstance(m, dict)]
    wrong = [t for t in types if t not in ("Transformer", "Pooling", "Normalize")]
    if wrong:
        raise ModelRejected(f"modules.json: {wrong[0][:80]} is not supported")
    path = next(
        (str(m.get("path", "")) for m in modules if str(m.get("type", "")).endswith("Pooling")), ""
    )
    mode = _mode(folder, path) if path else "mean"
    return Pooling(mode, "Normalize" in types)


def _mode(folder: Path, path: str) -> str:
    if "/" in path or path.startswith("."):
        raise ModelRejected(f"modules.json: a bad path {path[:80]!r}")
    settings = _read(folder / path / "config.json")
    if not isinstance(settings, dict):
        raise ModelRejected(f"{path}/config.json: expected an object")
    said = settings.get("pooling_mode")
    found = [said] if isinstance(said, str) else [m for k, m in _MODES.items() if settings.get(k)]
    found = [{"lasttoken": "last"}.get(mode, mode) for mode in found]
    if len(found) != 1 or found[0] not in _MODES.values():
        raise ModelRejected(f"{path}/config.json: pooling {found or 'of no kind'} is not supported")
    return found[0]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRejected(f"{path.name}: {error}") from error
