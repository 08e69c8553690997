"""Transformers' Trainer, with its batches, its optimizer and its checkpoints made ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import TrainerState

from llmos.errors import InvalidRequest
from llmos.programs.train import checkpoint
from llmos.programs.train.examples import WEIGHT, Batch, Examples, Loader, Order
from llmos.programs.train.ranks import Ranks
from llmos.programs.train.recipe import Recipe, learning_rate
from llmos.programs.train.steps import Steps
from llmos.programs.train.work import Work

STATE_FILE = "trainer_state.json"


class Resumable:
    """Of a Trainer: goes on from `resumed`, what `checkpoint.read` gave, bit for bit.

    The trainer's own files hold less (no running loss) and are more (a folder): here they are one.
    """

    resumed: dict[str, Any] | None = None
    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any
    accelerator: Any
    state: Any
    _tr_loss: Any
    _globalstep_last_logged: int

    def progress_state(self) -> dict[str, Any]:
        """What the trainer adds to a checkpoint: the same in all processes of a run."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "last_logged": self._globalstep_last_logged,
        }

    def own_state(self) -> dict[str, Any]:
        """What this process adds to it."""
        return {"generators": checkpoint.generators(), "loss_sum": float(self._tr_loss)}

    def folder_of(self, state: dict[str, Any], scratch: Path) -> str:
        """A folder for `train(resume_from_checkpoint=...)`."""
        self.resumed = state
        folder = scratch / "resumed"
        folder.mkdir(exist_ok=True)
        args = self.args
        reached = TrainerState(
            global_step=state["step"],
            train_batch_size=args.per_device_train_batch_size * max(1, args.n_gpu),
        )
        reached.save_to_json(str(folder / STATE_FILE))
        return str(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.resumed is not None
        checkpoint.restore(self.model, self.resumed["model"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.resumed is not None:
            self.optimizer.load_state_dict(self.resumed["optimizer"])
            self.lr_scheduler.load_state_dict(self.resumed["schedule"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.resumed is not None and self.resumed["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(self.resumed["scaler"])

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if self.resumed is not None:
            checkpoint.set_generators(self.resumed["generators"])


class ExamplesTrainer(Resumable, Trainer):
    """Learns from `Examples`, with the loss of a `Work`."""

    def __init__(self, recipe: Recipe, work: Work, ranks: Ranks, **given: Any) -> None:
        self._recipe = recipe
        self._work = work
        self._ranks = ranks
        super().__init__(model=work.model, train_dataset=work.examples["train"], **given)
        self.remove_callback(PrinterCallback)
        # not every model that takes `num_items_in_batch` heeds it (BERT's classifiers do not), and
        # gradients would be summed: here every batch counts by its mean
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> DataLoader[Batch]:
        examples = self.train_dataset
        assert isinstance(examples, Examples)
        training = self._recipe.training
        ranks = self._ranks
        at_once = training.batch_size * ranks.size
        return Loader(examples, Order(examples, at_once, training.seed, ranks.rank, ranks.size))

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        weight = inputs.pop(WEIGHT, None)
        if self._work.loss is None:
            loss = super().compute_loss(model, inputs, *given, **named)
        else:
            loss = self._work.loss(model, inputs)
        return loss if weight is None else loss * weight

    def create_optimizer(self, model: Any = None) -> Any:
        """Fused AdamW, SGD with its momentum; others as Trainer makes them."""
        name = self._recipe.training.optimizer
        if self.optimizer is None and name in ("adamw", "sgd"):
            rate = learning_rate(self._recipe)
            groups = self._groups(self.model if model is None else model)
            if name == "adamw":
                self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
            else:
                momentum = self._recipe.training.momentum
                self.optimizer = torch.optim.SGD(groups, lr=rate, momentum=momentum)
        return super().create_optimizer(model)

    def _groups(self, model: Any) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        weight_decay = self._recipe.training.weight_decay
        groups = [
            {"params": [p for n, p in learned if n in decayed], "weight_decay": weight_decay},
            {"params": [p for n, p in learned if n not in decayed], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


def make_arguments(recipe: Recipe, steps: Steps, scratch: Path) -> TrainingArguments:
    """Nothing is logged, measured or saved but when `Watch` says so. Raises InvalidRequest."""
    try:
        return TrainingArguments(**argument_fields(recipe, steps, scratch))
    except ValueError as error:
        raise InvalidRequest(f"recipe: training: {error}", param="recipe.training") from None


def argument_fields(recipe: Recipe, steps: Steps, scratch: Path) -> Mapping[str, Any]:
    """The fields of `TrainingArguments` that a recipe decides."""
    training = recipe.training
    optimizer = {"adamw": "adamw_torch_fused"}.get(training.optimizer, training.optimizer)
    return {
        "output_dir": str(scratch / "trainer"),
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulate,
        "max_steps": steps.total,
        "learning_rate": learning_rate(recipe),
        "lr_scheduler_type": training.schedule,
        "warmup_steps": round(training.warmup * steps.total),
        "optim": optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip,
        "label_smoothing_factor": training.label_smoothing,
        "bf16": training.precision == "bfloat16",
        "fp16": training.precision == "float16",
        "activation_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "skip_memory_metrics": True,
        # gradients are summed in buckets that are made anew once it is known which come first,
        # unless some may not come at all: the same buckets before and after a checkpoint
        "ddp_find_unused_parameters": True,
        "ddp_broadcast_buffers": False,
    }
