"""Weights & Biases, offline: `wandb sync .../wandb/wandb/offline-run-*` sends it when wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from llmos.tracking.sink import Point, Run

PROJECT = "llmos"


class WandbSink:
    """Behind `sink.Sink`. Nothing leaves this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def begin(self, run: Run) -> None:
        """With its configuration."""
        self._runs[run.run_id] = wandb.init(
            project=PROJECT,
            id=run.run_id,
            name=run.name or run.run_id,
            dir=str(self._folder),
            config=dict(run.config),
            mode="offline",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True
            ),
        )

    def tell(self, run: Run, points: list[Point]) -> None:
        """Steps that do not rise are refused by W&B: they are a number of their own."""
        for point in points:
            self._runs[run.run_id].log({**point.values, "at_step": point.step})

    def end(self, run: Run, state: str) -> None:
        """With how it ended."""
        held = self._runs.pop(run.run_id)
        held.summary["state"] = state
        held.finish(exit_code=0 if state == "succeeded" else 1)

    def close(self) -> None:
        """What still runs goes on with our next start. W&B's own process ends."""
        for held in self._runs.values():
            held.finish()
        self._runs.clear()
        wandb.teardown()
