"""The program `train`: read the recipe, learn, measure, register."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.abi.program import Context, Yielded
from llmos.errors import InvalidRequest, OutOfMemory
from llmos.programs.train.crew import crew
from llmos.programs.train.libraries import import_all, require_extra
from llmos.programs.train.ranks import Ranks
from llmos.programs.train.recipe import BASE, RECIPE, TRAIN, Recipe, is_apart, parse
from llmos.weights.adapters import is_adapted

LIBRARIES = ("transformers", "peft", "trl", "accelerate", "torch")
NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


MEASURED = 2000
"""At most so many of the examples it learned from are measured at the end."""

SMALL_STEP = 2e9
"""Multiplications of a step, forward and backward: some 20 ms of one core."""


class TrainProgram:
    """Behind `abi.Program`. Its outputs: `model` (the version's reference), `metrics` by split,
    `steps`, `seconds`, `tokens`, `best_step`, `weights` (their digest)."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """Raises InvalidRequest for a recipe or data that are none, OutOfMemory, ProgramFailed for
        a run that diverged, PluginError without the extra `train`."""
        recipe = parse(ctx.inputs.get(RECIPE))
        require_extra()
        threads = threads_of(recipe, os.cpu_count() or 1)
        with crew(ctx, recipe.training.processes, threads) as ranks:
            return learn(ctx, ranks)


def learn(ctx: Context, ranks: Ranks) -> Mapping[str, Any]:
    """One process's part of a run; the outputs are the first's. Raises as `TrainProgram.run`."""
    recipe = parse(ctx.inputs.get(RECIPE))
    try:
        with warnings.catch_warnings():
            for library in LIBRARIES:  # what they say to each other about their next releases
                warnings.filterwarnings("ignore", category=FutureWarning, module=library)
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            return _Run(ctx, recipe, ranks).run()
    except RuntimeError as error:  # torch's: of the host, or of a device
        if any(sign in str(error) for sign in NO_MEMORY):
            raise OutOfMemory(
                "memory ran out: a smaller training.batch_size with training.accumulate, "
                "training.gradient_checkpointing or method: lora needs less; the last "
                "checkpoint is kept"
            ) from error
        raise


def threads_of(recipe: Recipe, num_cpus: int) -> int:
    """Of each process. One where a step is so small that threads would wait for each other most of
    the time. By the recipe alone: another number of threads adds in another order."""
    if recipe.training.threads is not None:
        return recipe.training.threads
    hidden, layers = recipe.model.hidden_size, recipe.model.num_layers
    tokens = recipe.training.batch_size * recipe.model.max_length
    is_small = not recipe.base and 72 * layers * hidden * hidden * tokens < SMALL_STEP
    return 1 if is_small else max(1, num_cpus // recipe.training.processes)


class _Run:
    """One attempt, in one process."""

    def __init__(self, ctx: Context, recipe: Recipe, ranks: Ranks) -> None:
        self._ctx = ctx
        self._ranks = ranks
        self._recipe = recipe
        self._scratch = Path(ctx.scratch)

    def run(self) -> Mapping[str, Any]:
        import torch
        from transformers import set_seed
        from transformers.utils import logging as library_logging

        from llmos.programs.train import checkpoint
        from llmos.programs.train.heap import keep_few_shapes, keep_freed

        keep_freed()
        keep_few_shapes()
        import_all()
        quiet: Any = library_logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        self._ctx.progress(0, 0, "steps", "reading")
        state = None
        if self._ctx.resumed_from is not None:
            state = checkpoint.read(Path(self._ctx.resumed_from))
            state = checkpoint.of_rank(state, self._ranks.rank, self._ranks.size)
        threads = state["threads"] if state else threads_of(self._recipe, os.cpu_count() or 1)
        torch.set_num_threads(threads)
        set_seed(self._recipe.training.seed)
        return self._learn(state)

    def _learn(self, state: dict[str, Any] | None) -> Mapping[str, Any]:
        from llmos.programs.train.objectives.choose import prepare
        from llmos.programs.train.rows import read_splits
        from llmos.programs.train.work import Setting

        recipe, ctx = self._recipe, self._ctx
        rows = read_splits(recipe.data, ctx.files, recipe.training.seed)
        base = ctx.models.get(BASE)
        if base and is_adapted(Path(base)):
            raise InvalidRequest(f"{recipe.base} is an adapter: none is made of it")
        kept = dict(state["kept"]) if state else {}
        setting = Setting(recipe, rows, Path(base) if base else None, kept)
        if self._ranks.is_first:
            work = prepare(setting)
            self._ranks.share(kept)
        else:
            kept.update(self._ranks.share(None))
            work = prepare(setting)
        del rows
        gc.collect()
        return self._train(work, kept, state)

    def _train(
        self, work: Any, kept: dict[str, str], state: dict[str, Any] | None
    ) -> Mapping[str, Any]:
        from llmos.programs.train import checkpoint, preference
        from llmos.programs.train.adapter import check_separable
        from llmos.programs.train.methods import apply_method, set_allocator_state
        from llmos.programs.train.steps import plan_steps
        from llmos.programs.train.trainer import ExamplesTrainer, make_arguments
        from llmos.programs.train.watch import Watch

        recipe, examples = self._recipe, work.examples[TRAIN]
        steps = plan_steps(recipe, len(examples))
        apply_method(recipe, work, steps.total)
        if is_apart(recipe):
            check_separable(recipe, work.model, Path(self._ctx.models[BASE]))
        self._ctx.emit("run", self._about(work, steps.total))
        watch = Watch(self._ctx, recipe, work, steps, kept, ranks=self._ranks)
        trainer: Any
        if recipe.objective in preference.OBJECTIVES:
            trainer = preference.make_trainer(recipe, work, steps, watch, self._scratch)
        else:
            arguments = make_arguments(recipe, steps, self._scratch)
            trainer = ExamplesTrainer(recipe, work, self._ranks, args=arguments, callbacks=[watch])
        watch.trainer = trainer
        resume_from = None
        if state is not None:
            watch.best.set_state(state["best"])
            watch.pace.set_state(state["num_tokens"], state["seconds"])
            resume_from = trainer.folder_of(state, self._scratch)
            set_allocator_state(work.model, state["allocator"])
        if state is not None and state["is_finished"]:
            checkpoint.restore(work.model, state["model"])
            num_steps = state["step"]
        else:
            self._ranks.seed(recipe.training.seed)
            trainer.train(resume_from_checkpoint=resume_from)
            num_steps = trainer.state.global_step
            if watch.has_yielded:
                raise Yielded
            if watch.has_stopped:
                return {"status": "cancelled", "steps": num_steps}
            watch.save(work.model, trainer.state, is_finished=True)
        return self._finish(work, watch, num_steps)

    def _about(self, work: Any, total_steps: int) -> dict[str, Any]:
        """What this attempt goes by: code, data, sizes."""
        from llmos.programs.train.saving import file_facts, versions

        parameters = list(work.model.parameters())
        return {
            "attempt": self._ctx.attempt,
            "versions": versions(),
            "data": {n: file_facts(Path(p)) for n, p in sorted(self._ctx.files.items())},
            "examples": {split: len(part) for split, part in work.examples.items()},
            "num_parameters": sum(p.numel() for p in parameters),
            "num_learned": sum(p.numel() for p in parameters if p.requires_grad),
            "total_steps": total_steps,
        }

    def _finish(self, work: Any, watch: Any, num_steps: int) -> Mapping[str, Any]:
        from llmos.programs.train import checkpoint
        from llmos.programs.train.methods import merge
        from llmos.programs.train.saving import save, send_adapter

        recipe, ranks, seconds = self._recipe, self._ranks, watch.pace.seconds
        best_step = watch.best.step if recipe.watch.keep_best and watch.best.load(work.model) else 0
        if work.is_shared_score:
            ranks.spread(checkpoint.learned(work.model).values())
        elif not ranks.is_first:
            return {}
        self._ctx.progress(num_steps, num_steps, "steps", "measuring")
        begun_s = time.monotonic()
        parts = work.examples | {TRAIN: work.examples[TRAIN].head(MEASURED)}
        metrics = {split: work.score(work.model, part) for split, part in parts.items()}
        if not ranks.is_first:
            return {}
        for split, scores in metrics.items():
            self._ctx.emit("metric", {"step": num_steps, "split": split, "final": True, **scores})
        outputs = {
            "status": "completed",
            "metrics": metrics,
            "steps": num_steps,
            "best_step": best_step or num_steps,
            "seconds": round(seconds, 3),
            "measuring_s": round(time.monotonic() - begun_s, 3),
            "tokens": watch.pace.num_tokens,
            "tokens_per_s": round(watch.pace.num_tokens / max(1e-6, seconds), 1),
        }
        folder = self._scratch / "model"
        if not is_apart(recipe):
            merge(recipe, work)
        outputs["weights"] = save(self._ctx, recipe, work, outputs, folder)
        if is_apart(recipe):
            send_adapter(self._ctx, folder)
        if recipe.register:
            self._ctx.progress(num_steps, num_steps, "steps", "registering")
            outputs["model"] = self._ctx.register(str(folder), recipe.name)
        return outputs
