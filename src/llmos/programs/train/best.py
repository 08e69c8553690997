"""The best weights so far, and how long ago that was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import checkpoint

LESS_IS_BETTER = ("loss", "perplexity", "mse", "mae", "rmse", "wer")


class Best:
    """By one metric. The weights lie in a file: memory has room for one set only."""

    def __init__(self, metric: str, path: Path) -> None:
        self.metric = metric
        self.value: float | None = None
        self.step = 0
        self.num_worse = 0
        self._rank = (0.0, 0.0)
        self._path = path

    def offer(
        self,
        step: int,
        scores: Mapping[str, float],
        weights: Callable[[], Mapping[str, torch.Tensor] | None],
    ) -> None:
        """Keep `weights` if they are the best. Raises InvalidRequest for a metric there is not."""
        if self.metric not in scores:
            known = ", ".join(scores)
            raise InvalidRequest(
                f"recipe: watch.metric: no {self.metric!r} is measured; there are {known}",
                param="recipe.watch.metric",
            )
        value = scores[self.metric]
        sign = -1 if self.metric in LESS_IS_BETTER else 1
        rank = (sign * value, -scores.get("loss", 0.0))  # of equal ones, the surer
        if self.value is not None and not rank > self._rank:
            self.num_worse += 1
            return
        self.value, self.step, self.num_worse, self._rank = value, step, 0, rank
        if (kept := weights()) is not None:
            checkpoint.write(self._path, {"model": kept})

    def load(self, model: Any) -> bool:
        """Put them back into a model; False if none were kept."""
        if not self._path.exists():
            return False
        checkpoint.restore(model, checkpoint.read(self._path)["model"])
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        weights = checkpoint.read(self._path)["model"] if self._path.exists() else None
        return {
            "value": self.value,
            "step": self.step,
            "num_worse": self.num_worse,
            "rank": self._rank,
            "weights": weights,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.value, self.step = state["value"], state["step"]
        self.num_worse, self._rank = state["num_worse"], state["rank"]
        if state["weights"] is not None:
            checkpoint.write(self._path, {"model": state["weights"]})
