"""A run that is put off and killed again and again, beside one that nobody disturbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import serving
from benchmarks.train.causal import corpus
from benchmarks.train.jobs import OPTIONS, Runs

GAP_STEPS = 20
ORDER = ("suspend", "suspend", "kill")


def recipe(steps: int) -> dict[str, Any]:
    return {
        "name": "exact",
        "objective": "causal",
        "model": {
            "family": "gpt2",
            "vocab_size": 500,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "max_length": 32,
        },
        "training": {"steps": steps, "batch_size": 8, "threads": 1},
        "watch": {"evaluate_every": steps // 2, "log_every": 5, "samples": 0, "checkpoint_s": 0.2},
    }


def measure(result: harness.Result, folder: Path, steps: int, rounds: int) -> None:
    """`rounds` times two suspensions and a kill."""
    files = corpus(folder)
    wanted = recipe(steps)
    with serving(*OPTIONS) as (server, _):
        runs = Runs(server)
        whole = runs.end(runs.submit(wanted, files))
        job_id = runs.submit(wanted, files)
        counts = dict.fromkeys(ORDER, 0)
        step = 0
        for what in ORDER * rounds:
            seen = runs.step_after(job_id, step + GAP_STEPS)
            if seen is None:
                raise RuntimeError(f"it ended after {counts}: more steps are needed")
            step = seen
            if what == "kill":
                runs.kill_worker()
            else:
                runs.client.processes.suspend(job_id)
                runs.client.processes.resume(job_id)
            counts[what] += 1
        again = runs.end(job_id)
    assert whole.outputs is not None
    assert again.outputs is not None
    if again.num_deaths != counts["kill"]:
        raise RuntimeError(f"{again.num_deaths} deaths, {counts['kill']} kills")
    same = whole.outputs["weights"] == again.outputs["weights"]
    figure = f"suspended {counts['suspend']} times, killed {counts['kill']}: same weights"
    result.add(harness.Row(figure, float(same), "of 1"))
    result.add(harness.Row("the same: attempts it took", float(again.attempt), "attempts"))
