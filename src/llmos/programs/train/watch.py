"""What looks after a run, step by step: measures, checkpoints, and whether it should go on at all.

Every decision depends on the number of the step alone, so a run that was interrupted measures and
stops where one that was not would have. Only checkpoints go by the clock; they change nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from llmos.abi.program import Context
from llmos.errors import ProgramFailed
from llmos.programs.train import checkpoint
from llmos.programs.train.best import Best
from llmos.programs.train.methods import allocator_state, reallocate
from llmos.programs.train.pace import Pace
from llmos.programs.train.recipe import VALIDATION, Method, Recipe
from llmos.programs.train.steps import Steps
from llmos.programs.train.work import Work

PROGRESS_PERIOD_S = 0.25
CHECKPOINT_SHARE = 50
"""A checkpoint that takes a second is followed by so many seconds of work, at least."""


class Watch(TrainerCallback):
    """`trainer` is set once there is one. After the run, `has_yielded` or `has_stopped` tell why it
    ended early."""

    trainer: Any

    def __init__(
        self, ctx: Context, recipe: Recipe, work: Work, steps: Steps, kept: Mapping[str, str]
    ) -> None:
        self._ctx = ctx
        self._recipe = recipe
        self._work = work
        self._steps = steps
        self._kept = kept
        self._scratch = Path(ctx.scratch)
        self.best = Best(recipe.watch.metric or work.metric, self._scratch / "best.pt")
        self.pace = Pace(work.examples["train"])
        self.has_yielded = False
        self.has_stopped = False
        self._told_s = 0.0
        self._saved_s = time.monotonic()
        self._save_took_s = 0.0
        self._saved_step = 0

    # what the trainer calls

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        resumed = self.trainer.resumed
        if resumed is not None:
            self.trainer._tr_loss += resumed["loss_sum"]
            self.trainer._globalstep_last_logged = resumed["last_logged"]
        self.pace.begin()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._recipe.method is Method.ADALORA:
            reallocate(self.trainer.model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, model = state.global_step, self.trainer.model
        is_last = step >= self._steps.total
        is_logged = self._is_logged(step)
        if is_logged or args.device.type == "cpu":
            self._check_loss(step)
        control.should_log = is_logged
        if (step % self._steps.evaluate_every == 0 or is_last) and self._evaluate(step, model):
            control.should_training_stop = True
        self._tell(step)
        is_over = is_last or control.should_training_stop
        if self._ctx.should_stop:
            self.has_stopped = control.should_training_stop = True
        elif self._ctx.should_yield and not is_over:
            self.has_yielded = control.should_training_stop = True
        if self.has_yielded or self.has_stopped or (self._is_time() and not is_over):
            self.save(model, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            told = {name: round(float(value), 6) for name, value in logs.items()}
            self._ctx.emit("metric", {"step": state.global_step, **told, **self.pace.read()})

    # measures

    def _check_loss(self, step: int) -> None:
        if not math.isfinite(float(self.trainer._tr_loss)):
            kept = f"step {self._saved_step}" if self._saved_step else "the start"
            raise ProgramFailed(
                f"the loss is {float(self.trainer._tr_loss)} at step {step}: try a smaller "
                f"training.learning_rate, or training.clip; the last good checkpoint ({kept}) is "
                "kept"
            )

    def _evaluate(self, step: int, model: Any) -> bool:
        """Measure on the validation examples. True: it is time to stop."""
        examples = self._work.examples.get(VALIDATION)
        if examples is None:
            return False
        with self.pace.pause():
            scores = self._work.score(model, examples)
            self._ctx.emit("metric", {"step": step, "split": VALIDATION, **scores})
            for shown in self._work.show(model, examples, self._recipe.watch.samples):
                self._ctx.emit("output", {"step": step, **shown})
            keeps = self._recipe.watch.keep_best
            self.best.offer(step, scores, lambda: checkpoint.learned(model) if keeps else None)
        patience = self._recipe.watch.patience
        return patience is not None and self.best.num_worse >= patience

    def _is_logged(self, step: int) -> bool:
        return step % self._steps.log_every == 0 or step >= self._steps.total

    def _tell(self, step: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < PROGRESS_PERIOD_S and step < self._steps.total:
            return
        self._told_s = now_s
        num_logged = max(1, step - self.trainer._globalstep_last_logged)
        loss = float(self.trainer._tr_loss) / num_logged
        what = f"epoch {step / self._steps.per_epoch:.2f}  loss {loss:.4f}  {self.pace.text()}"
        self._ctx.progress(step, self._steps.total, "steps", what)

    # checkpoints

    def _is_time(self) -> bool:
        pause_s = max(self._recipe.watch.checkpoint_s, CHECKPOINT_SHARE * self._save_took_s)
        return time.monotonic() - self._saved_s >= pause_s

    def save(self, model: Any, state: Any, *, is_finished: bool = False) -> None:
        """Make a checkpoint, durable when it returns. Raises ProgramFailed for weights that are no
        numbers, OSError on a full disk; the one before it is kept then."""
        begun_s = time.monotonic()
        self._check_loss(state.global_step)
        learned = checkpoint.learned(model)
        if not all(
            bool(torch.isfinite(v).all()) for v in learned.values() if v.is_floating_point()
        ):
            raise ProgramFailed(f"weights are no numbers any more at step {state.global_step}")
        made = {
            "step": state.global_step,
            "model": learned,
            "best": self.best.state(),
            "kept": dict(self._kept),
            "allocator": allocator_state(model),
            "threads": torch.get_num_threads(),
            "is_finished": is_finished,
            "num_tokens": self.pace.num_tokens,
            "seconds": self.pace.seconds,
            **self.trainer.progress_state(),
        }
        if self._is_logged(state.global_step):  # told before the next step, so not once more
            made |= {"loss_sum": 0.0, "last_logged": state.global_step}
        path = self._scratch / f"checkpoint-{state.global_step}.pt"
        with self.pace.pause():
            checkpoint.write(path, made)
            self._ctx.checkpoint(str(path))
        self._saved_s = time.monotonic()
        self._save_took_s = self._saved_s - begun_s
        self._saved_step = state.global_step
