"""The bundled folder: weights rounded to bfloat16, configuration, tokenizer, record of the run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from tools.pilot import corpus, paths, tokenizer
from tools.pilot.train import Recipe, Training

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
FINGERPRINT_DOCUMENTS = 500


def write(training: Training, text: Tokenizer, folder: Path) -> None:
    """Write the model and tokenizer files of a Hugging Face folder into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(training.model.config)
    model.load_state_dict(training.model.state_dict())
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=256,
        bos_token_id=tokenizer.END_OF_TEXT_ID,
        eos_token_id=[tokenizer.END_ID, tokenizer.END_OF_TEXT_ID],
        pad_token_id=tokenizer.END_OF_TEXT_ID,
    )
    model.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written as 0600
    tokenizer.save(text, folder)


def num_parameters(recipe: Recipe) -> int:
    """Parameters of the model, the shared embedding counted once."""
    return sum(p.numel() for p in Training(recipe).model.parameters())


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(training_record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What made the folder: recipe, versions, machine, digests. Contents of `recipe.json`."""
    recipe = Recipe(**training_record["recipe"])
    return {
        **training_record,
        "num_parameters": num_parameters(recipe),
        "threads": 1,
        "corpus": {
            "seed": "show",
            "num_documents": FINGERPRINT_DOCUMENTS,
            "sha256": corpus.digest("show", FINGERPRINT_DOCUMENTS),
        },
        "sha256": {name: digest(folder / name) for name in ("model.safetensors", "tokenizer.json")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name).split("+")[0] for name in PACKAGES},
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` for people to read and diff."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def size_bytes(folder: Path = paths.BUNDLE) -> int:
    """The size of all files of the folder, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
