"""The folder that becomes a version: weights, tokenizer, and a card that says how it was made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos import __version__
from llmos.abi.program import RAW, Context
from llmos.programs.train.adapter import save_adapter
from llmos.programs.train.recipe import BASE, Recipe, is_apart
from llmos.programs.train.work import Work

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "trl")
ADAPTER = f"{RAW}adapter"
PIECE_BYTES = 4 << 20


def save(ctx: Context, recipe: Recipe, work: Work, outputs: Mapping[str, Any], folder: Path) -> str:
    """Write it all; the digest of the weights that are not a base's."""
    folder.mkdir(exist_ok=True)
    if is_apart(recipe):
        save_adapter(recipe, work.model, Path(ctx.models[BASE]), folder)
    else:
        work.model.save_pretrained(folder)
    if work.tokenizer is not None:
        work.tokenizer.save_pretrained(folder)
    work.finish(folder)
    made = facts(ctx, recipe, work, outputs)
    (folder / "training.json").write_text(_json(made), "utf-8")
    (folder / "README.md").write_text(card(recipe, made), "utf-8")
    files = sorted(folder.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def send_adapter(ctx: Context, folder: Path) -> None:
    """What is no model of its own, as the job's file `adapter.tar`."""
    archive = folder.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(folder).as_posix())
    with archive.open("rb") as file:
        for number, piece in enumerate(iter(lambda: file.read(PIECE_BYTES), b"")):
            ctx.result(ADAPTER, str(number), number, piece)


def facts(ctx: Context, recipe: Recipe, work: Work, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """All that decided the weights, and what they came to."""
    import msgspec

    parameters = list(work.model.parameters())
    return {
        "recipe": msgspec.to_builtins(recipe),
        "job": ctx.job_id,
        "data": {name: file_facts(Path(path)) for name, path in sorted(ctx.files.items())},
        "examples": {split: len(part) for split, part in work.examples.items()},
        "base": recipe.base or None,
        "num_parameters": sum(p.numel() for p in parameters),
        "metrics": outputs["metrics"],
        "steps": outputs["steps"],
        "seconds": outputs["seconds"],
        "tokens": outputs["tokens"],
        "versions": versions(),
        **work.facts,
    }


def file_facts(path: Path) -> dict[str, Any]:
    """What a file was: its digest and its size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"digest": f"sha256:{digest}", "size_bytes": path.stat().st_size}


def versions() -> dict[str, str]:
    """Of the code that did it."""
    found = {"llmos": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def card(recipe: Recipe, made: Mapping[str, Any]) -> str:
    """For people: what it is, what it was made of, how good it is."""
    how = "over" if is_apart(recipe) else "from"
    base = f" {how} `{recipe.base}`" if recipe.base else " from scratch"
    lines = [
        f"# {recipe.name}",
        "",
        f"Objective `{recipe.objective}`, method `{recipe.method}`,{base}; "
        f"{made['num_parameters']:,} parameters, {made['steps']:,} steps.",
        "",
        "| split | examples | measures |",
        "|---|---|---|",
    ]
    for split, scores in made["metrics"].items():
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        lines.append(f"| {split} | {made['examples'][split]:,} | {told} |")
    lines += ["", "| data | digest |", "|---|---|"]
    lines += [f"| {name} | `{one['digest']}` |" for name, one in made["data"].items()]
    if labels := made.get("labels"):
        lines += ["", "Labels: " + ", ".join(f"`{label}`" for label in labels[:100])]
    lines += ["", "How it was made, in full: `training.json`.", ""]
    return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
