"""The bundled folders: weights rounded to bfloat16, configuration, tokenizer, record, card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tools.small import paths, tokenizer
from tools.small.train import Recipe

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {
        "idx": 2,
        "name": "2",
        "path": "2_Normalize",
        "type": "sentence_transformers.models.Normalize",
    },
]


def write(model: Any, recipe: Recipe, spent_s: float, folder: Path) -> None:
    """A Hugging Face folder, with what made it in `recipe.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    model.to(dtype=torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written as 0600
    tokenizer.save(tokenizer.make(), folder)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    made = {
        "recipe": asdict(recipe),
        "cpu_s": round(spent_s),
        "num_parameters": num_parameters,
        "sha256": {"model.safetensors": digest},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name).split("+")[0] for name in PACKAGES},
    }
    write_json(folder / "recipe.json", made)


def write_pooling(folder: Path, hidden_size: int) -> None:
    """That its vectors are means, of length one: as sentence-transformers says it."""
    write_json(folder / "modules.json", _MODULES)
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", pooling)


def write_json(path: Path, value: Any) -> None:
    """Write `value` for people to read and diff."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` has written."""
    return json.loads(path.read_text(encoding="utf-8"))


def size_bytes(folder: Path) -> int:
    """Of all its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_size(folder: Path) -> None:
    """Ends the program when it is too large to ship."""
    if (size := size_bytes(folder)) > paths.MAX_FOLDER_BYTES:
        raise SystemExit(f"{folder} has {size} bytes, more than {paths.MAX_FOLDER_BYTES}")
    print(f"{folder.name}: {size} bytes")
