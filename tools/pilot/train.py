"""Training. One thread, fixed seeds: the same machine gives the same bytes.

The learning rate warms up, stays, and falls to zero over the last part (warm-up, stable, decay:
Hu et al., MiniCPM, 2024); matrices learn by Muon (Jordan et al., 2024), the rest by AdamW. Until
the fall begins, a run of any length is the same run, so a checkpoint serves them all.
"""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Time, D width, N learned, Vocabulary

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tools.pilot import paths, tokenizer
from tools.pilot.batches import Batch, batches


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights, besides the code and the versions."""

    steps: int = 1600
    seed: int = 8400
    hidden_size: int = 192
    intermediate_size: int = 448
    num_hidden_layers: int = 5
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warmup_steps: int = 60
    decay_share: float = 0.75


def model_config(recipe: Recipe) -> LlamaConfig:
    """The architecture, as Transformers names it."""
    return LlamaConfig(
        vocab_size=tokenizer.VOCAB_SIZE,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_key_value_heads,
        max_position_embeddings=tokenizer.CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.END_OF_TEXT_ID,
        eos_token_id=tokenizer.END_ID,
        pad_token_id=tokenizer.END_OF_TEXT_ID,
    )


def rate(recipe: Recipe, step: int) -> float:
    """The share of the learning rates used in `step`."""
    decay_steps = max(1, round(recipe.steps * recipe.decay_share))
    return min(1.0, (step + 1) / recipe.warmup_steps, (recipe.steps - step) / decay_steps)


class Training:
    """A model under training, with its optimizers and the number of steps done."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.model = LlamaForCausalLM(model_config(recipe))
        self.step = 0
        self.wall_s, self.cpu_s = 0.0, 0.0  # spent on all steps so far
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if all(p is not m for m in matrices)]
        decay = recipe.weight_decay
        self.optimizers = (
            torch.optim.Muon(matrices, lr=recipe.muon_learning_rate, weight_decay=decay),
            torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self._rates = (recipe.muon_learning_rate, recipe.learning_rate)

    def learn(self, batch: Batch) -> float:
        """One step; the mean loss over the learned tokens."""
        ids_BT, labels_BT = batch
        hidden_BTD = self.model.model(input_ids=ids_BT, use_cache=False).last_hidden_state
        target_BT = labels_BT[:, 1:]
        learned_BT = target_BT != tokenizer.IGNORED
        # logits only where something is learned: most of a batch is questions
        logits_NV = self.model.lm_head(hidden_BTD[:, :-1][learned_BT])
        loss = torch.nn.functional.cross_entropy(logits_NV, target_BT[learned_BT])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        share = rate(self.recipe, self.step)
        for optimizer, full in zip(self.optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "step": self.step,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe."""
        state = torch.load(path, weights_only=True)
        self.step, self.wall_s, self.cpu_s = state["step"], state["wall_s"], state["cpu_s"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def fix_arithmetic() -> None:
    """One thread and deterministic kernels: the order of every addition is fixed."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def run(
    recipe: Recipe, text: Tokenizer, *, work: Path | None = None, start: Path | None = None
) -> Training:
    """Train by `recipe`; every 200 steps leave a checkpoint in `work`, where one is named."""
    fix_arithmetic()
    training = Training(recipe)
    if start is not None:
        training.restore(start)
    losses = []
    wall_s, cpu_s = time.monotonic() - training.wall_s, time.process_time() - training.cpu_s
    for batch in batches(text, recipe.seed, training.step):
        if training.step >= recipe.steps:
            break
        losses.append(training.learn(batch))
        training.wall_s, training.cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        if work is not None and training.step % 50 == 0:
            mean, losses = sum(losses) / len(losses), []
            print(f"step {training.step} loss {mean:.4f} {training.wall_s:.0f} s", flush=True)
        if work is not None and training.step % 200 == 0:
            training.save(work / f"step-{training.step}.pt")
    return training


def train(recipe: Recipe, start: Path | None = None) -> None:
    """Train the tokenizer and the model; leave both in the work folder, and the time it took."""
    paths.WORK.mkdir(parents=True, exist_ok=True)
    text = tokenizer.train()
    tokenizer.save(text, paths.WORK)
    training = run(recipe, text, work=paths.WORK, start=start)
    training.save(paths.WORK / "final.pt")
    spent = {"wall_s": round(training.wall_s), "cpu_s": round(training.cpu_s)}
    record = {"recipe": asdict(recipe), "training": spent}
    (paths.WORK / "training.json").write_text(json.dumps(record, indent=2) + "\n")
