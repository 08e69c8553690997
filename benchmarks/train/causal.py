"""A small GPT learns tinyshakespeare: here, in a plain loop, and in Transformers' Trainer alone.

Tokens per processor second of the process that learns, so that other work on the machine changes
little; all three with the same tokens, sizes, batches, threads and schedule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import harness
from benchmarks.serving import Server, serving
from benchmarks.train.jobs import DATA, OPTIONS, Runs, cpu_s
from benchmarks.train.plain import LOG_STEPS, Sizes

ARMS = {"loop": "plain PyTorch loop", "trainer": "Transformers' Trainer"}
VOCAB, HIDDEN, LAYERS, HEADS, LENGTH, BATCH = 2000, 160, 4, 4, 128, 8
SKIPPED = 20
HELD_CHARS = 40_000
RATE = 1e-3
THREADS = 1
PLOT = "train-loss.svg"
COLOURS = ("#2563eb", "#9aa5b1", "#f59e0b")


def recipe(name: str, steps: int, seed: int = 0) -> dict[str, Any]:
    """A GPT-2 of 1.6 million weights."""
    return {
        "name": name,
        "objective": "causal",
        "model": {
            "family": "gpt2",
            "vocab_size": VOCAB,
            "hidden_size": HIDDEN,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "max_length": LENGTH,
            "dropout": 0.0,
        },
        "training": {
            "steps": steps,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "threads": THREADS,
            "seed": seed,
        },
        "watch": {
            "evaluate_every": steps,
            "log_every": LOG_STEPS,
            "samples": 0,
            "keep_best": False,
        },
    }


def corpus(folder: Path) -> dict[str, Path]:
    """The end is held out."""
    text = (DATA / "text" / "tinyshakespeare.txt").read_text("utf-8")
    files = {"train": folder / "train.txt", "validation": folder / "validation.txt"}
    files["train"].write_text(text[:-HELD_CHARS], "utf-8")
    files["validation"].write_text(text[-HELD_CHARS:], "utf-8")
    return files


def measure(
    result: harness.Result, folder: Path, steps: int, repetitions: int, plots: Path
) -> None:
    """Every repetition draws anew, the same draw for all three."""
    files = corpus(folder)
    found: dict[str, list[Learned]] = {"ours": [], **{arm: [] for arm in ARMS}}
    with serving(*OPTIONS) as (server, _):
        for seed in range(repetitions):
            found["ours"].append(_ours(server, files, steps, seed, folder))
            for arm in ARMS:
                found[arm].append(_peer(arm, folder / "blocks.npz", sizes(steps, seed)))
    for arm, said in ARMS.items():
        for key, unit, figure in (
            ("tokens_per_cpu_s", "tokens/s", "causal, 1.6M weights: per processor second"),
            ("loss", "nats", f"causal, {steps} steps: loss of held-out text"),
        ):
            ours, theirs = ([getattr(one, key) for one in found[who]] for who in ("ours", arm))
            result.add(harness.paired(figure, unit, ours, said, theirs))
    result.add(
        harness.single(
            "causal, 1.6M weights: per second",
            "tokens/s",
            [one.tokens_per_s for one in found["ours"]],
        )
    )
    draw({ARMS.get(who, who): runs for who, runs in found.items()}, plots / PLOT)


class Learned(msgspec.Struct):
    """What came of a run; the points of its curve are (step, mean loss since the one before)."""

    tokens_per_cpu_s: float
    tokens_per_s: float
    loss: float
    curve: list[tuple[int, float]]


def _ours(server: Server, files: dict[str, Path], steps: int, seed: int, folder: Path) -> Learned:
    runs = Runs(server)
    job_id = runs.submit(recipe("shakespeare", steps, seed), files)
    marks: list[tuple[int, float]] = []
    curve = []
    for event in runs.metrics(job_id):
        step = int(event.value.get("step", 0))
        if "loss" not in event.value or "split" in event.value:
            continue
        curve.append((step, event.value["loss"]))
        if SKIPPED <= step < steps:
            marks.append((step, cpu_s(runs.worker_pid())))
    outputs = runs.end(job_id).outputs
    assert outputs is not None
    shown = runs.client.models.show(outputs["model"])
    if not (folder / "blocks.npz").exists():
        write_blocks(Path(shown.folder), files, folder / "blocks.npz")
    (first, begun_s), (last, ended_s) = marks[0], marks[-1]
    return Learned(
        (last - first) * BATCH * LENGTH / (ended_s - begun_s),
        outputs["tokens_per_s"],
        outputs["metrics"]["validation"]["loss"],
        curve,
    )


def write_blocks(model: Path, files: dict[str, Path], path: Path) -> None:
    """What a model's tokenizer makes of the files, for the peers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    made: dict[str, Any] = {}
    for split, file in files.items():
        ids = tokenizer.encode(file.read_text("utf-8"), add_special_tokens=False).ids
        count = len(ids) // LENGTH
        made[split] = np.asarray(ids[: count * LENGTH], dtype=np.int32).reshape(count, LENGTH)
    np.savez(path, **made)


def sizes(steps: int, seed: int = 0) -> Sizes:
    return Sizes(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_layers=LAYERS,
        num_heads=HEADS,
        max_length=LENGTH,
        batch_size=BATCH,
        steps=steps,
        learning_rate=RATE,
        threads=THREADS,
        skipped=SKIPPED,
        seed=seed,
    )


def _peer(arm: str, blocks: Path, wanted: Sizes) -> Learned:
    said = msgspec.json.encode(wanted).decode()
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.train.plain", arm, str(blocks), said],
            capture_output=True,
            text=True,
            check=False,
            cwd=harness.ROOT,
            env=_environment(elsewhere),
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    *points, last = (json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{")
    return msgspec.convert(last | {"curve": [(p["step"], p["loss"]) for p in points]}, Learned)


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "TMPDIR": folder}


def draw(found: dict[str, list[Learned]], path: Path) -> None:
    """The loss of every run by step, a colour for each arm."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = path.name
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4))
    for (who, runs), colour in zip(found.items(), COLOURS, strict=True):
        for number, run in enumerate(runs):
            label = who if number == 0 else None
            axis.plot(*zip(*run.curve, strict=True), color=colour, lw=1, alpha=0.8, label=label)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, nats per token")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
