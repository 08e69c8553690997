"""What looks after a run, step by step: measures, checkpoints, and whether it should go on at all.

Every decision depends on the number of the step alone, so a run that was interrupted measures and
stops where one that was not would have. Only checkpoints go by the clock; they change nothing.
"""

from __future__ import annotations

import enum
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
from llmos.programs.train.ranks import Ranks
from llmos.programs.train.recipe import VALIDATION, Method, Recipe
from llmos.programs.train.steps import Steps
from llmos.programs.train.work import Work

PROGRESS_PERIOD_S = 0.25
CHECKPOINT_SHARE = 50
"""A checkpoint that takes a second is followed by so many seconds of work, at least."""


class Word(enum.IntFlag):
    """What the first process of a run says to all at the end of a step."""

    GO_ON = 0
    ENOUGH = 1
    SAVE = 2
    YIELD = 4
    STOP = 8


class Watch(TrainerCallback):
    """`trainer` is set once there is one. After the run, `has_yielded` or `has_stopped` tell why it
    ended early."""

    trainer: Any

    def __init__(
        self,
        ctx: Context,
        recipe: Recipe,
        work: Work,
        steps: Steps,
        kept: Mapping[str, str],
        *,
        ranks: Ranks,
    ) -> None:
        self._ctx = ctx
        self._ranks = ranks
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
        is_measured = step % self._steps.evaluate_every == 0 or is_last
        is_enough = is_measured and self._evaluate(step, model)
        control.should_log = is_logged  # after TRL's own measures, whose log takes it away
        self._tell(step)
        word = Word(self._ranks.agree(self._decide(is_enough, is_last)))
        self.has_stopped = Word.STOP in word
        self.has_yielded = Word.YIELD in word
        if word & (Word.STOP | Word.YIELD | Word.ENOUGH):
            control.should_training_stop = True
        if Word.SAVE in word:
            self.save(model, state)

    def _decide(self, is_enough: bool, is_last: bool) -> Word:
        word = Word.ENOUGH if is_enough else Word.GO_ON
        if self._ctx.should_stop:
            return word | Word.STOP | Word.SAVE
        if is_enough or is_last:
            return word
        if self._ctx.should_yield:
            return Word.YIELD | Word.SAVE
        return Word.SAVE if self._is_time() else Word.GO_ON

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
        if not self._ranks.is_first:
            if self._work.is_shared_score:
                self._work.score(model, examples)
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
        own = self.trainer.own_state()
        last = {}
        if self._is_logged(state.global_step):  # told before the next step, so not once more
            own["loss_sum"] = 0.0
            last["last_logged"] = state.global_step
        first, *others = self._ranks.gather(own)
        if self._ranks.is_first:
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
                **last,
                **first,
                "others": others,
            }
            path = self._scratch / f"checkpoint-{state.global_step}.pt"
            with self.pace.pause():
                checkpoint.write(path, made)
                self._ctx.checkpoint(str(path))
        self._saved_s = time.monotonic()
        self._save_took_s = self._saved_s - begun_s
        self._saved_step = state.global_step
