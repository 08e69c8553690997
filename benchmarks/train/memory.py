"""What learning takes: gradients and the optimizer's state of LoRA beside those of all weights, and
the estimate that a run is accepted by beside what it took at most."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import serving
from benchmarks.train import texts
from benchmarks.train.jobs import OPTIONS, Runs

SHAPE: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
VOCAB, LENGTH = 20_000, 32
METHODS = ("full", "lora", "head")
WIDE = {"hidden_size": 512, "num_layers": 12, "num_heads": 8, "max_length": 128}
SET, ROWS = "ChnSentiCorp", 600
"""Texts that are cut, mostly: batches are as long as they may be."""


def learning_bytes(method: str) -> tuple[int, int]:
    """Of the weights that are learned; and how many weights there are."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmos.programs.train.methods import apply_method
    from llmos.programs.train.recipe import parse
    from llmos.programs.train.work import Work

    torch.manual_seed(0)
    config: Any = LlamaConfig(vocab_size=VOCAB, intermediate_size=2048, **SHAPE)
    model = LlamaForCausalLM(config)
    number = sum(weight.numel() for weight in model.parameters())
    recipe = parse({"name": "m", "objective": "causal", "base": "any", "method": method})
    work = Work(model, None, {}, lambda model, examples: {})
    apply_method(recipe, work, 1)
    learned = [weight for weight in work.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, fused=True)
    ids = torch.zeros((1, LENGTH), dtype=torch.int64)
    work.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    kept = [weight.grad for weight in learned if weight.grad is not None]
    kept += [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return sum(value.numel() * value.element_size() for value in kept), number


def measure(result: harness.Result, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        full, number = learning_bytes("full")
        lora, _ = learning_bytes("lora")
    result.add(
        harness.Row(
            f"LoRA, rank 8, {number / 1e6:.0f}M weights: gradients and AdamW",
            harness.round4(lora / 1e6),
            "MB",
            "all weights",
            harness.round4(full / 1e6),
            harness.round4(lora / full),
        )
    )
    estimates(result, folder)


def estimates(result: harness.Result, folder: Path) -> None:
    """Of a run from scratch, then of the same with its model as a base."""
    learned, _ = texts.split(SET, ROWS)
    files = {"train": texts.write(folder, SET, learned, [])["train"]}
    base = ""
    with serving(*OPTIONS) as (server, _):
        runs = Runs(server)
        for method in METHODS:
            job_id = runs.submit(recipe(method, base), files)
            took = _highest_bytes(runs, job_id)
            job = runs.end(job_id)
            assert job.outputs is not None
            base = base or job.outputs["model"]
            estimated = job.spec.memory_bytes
            assert estimated is not None
            result.add(
                harness.Row(
                    f"memory, {method}, a BERT of 44M weights: at most",
                    harness.round4(took / 1e6),
                    "MB",
                    "reserved before",
                    harness.round4(estimated / 1e6),
                    harness.round4(took / estimated),
                )
            )


def recipe(method: str, base: str) -> dict[str, Any]:
    """A few steps of long texts."""
    made: dict[str, Any] = {
        "name": "wide",
        "objective": "classify",
        "method": method,
        "model": WIDE,
        "training": {"steps": 6, "batch_size": 16, "threads": 1},
        "watch": {"samples": 0, "log_every": 1, "evaluate_every": 3},
    }
    return made | ({"base": base} if base else {})


def _highest_bytes(runs: Runs, job_id: str) -> int:
    """Of the process that did it, as the system counted until shortly before its end."""
    highest, pids = 0, set()
    while runs.job(job_id).ended_ns is None:
        try:
            pid = runs.worker_pid()
            status = Path(f"/proc/{pid}/status").read_text("ascii")
        except (OSError, ValueError):  # it is not there yet, or no longer
            continue
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found is not None:
            pids.add(pid)
            highest = max(highest, 1024 * int(found[1]))
        time.sleep(0.02)
    if len(pids) != 1:
        raise RuntimeError(f"{len(pids)} processes did it")
    return highest
