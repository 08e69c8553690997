"""The peers of causal pre-training, each in a process of its own: `python -m benchmarks.train.plain
ARM TOKENS SIZES`. Prints a JSON object every `log_steps` steps (`step`, mean `loss` of them), and
one at the end: tokens per processor second and per second, final `loss` of what was held out.

`loop` is a GPT and a loop as nanoGPT has them (no compiler), `trainer` Transformers' Trainer over
the same GPT-2 that ours makes.
"""
# ruff: noqa: N803, N806 - tensor names end in shapes: Batch, Length, Hidden

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

LOG_STEPS = 10


class Sizes(msgspec.Struct, frozen=True):
    """Of the model and the run."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    max_length: int
    batch_size: int
    steps: int
    learning_rate: float
    threads: int
    skipped: int
    """Steps that are not timed."""
    seed: int = 0
    log_steps: int = LOG_STEPS


class Layer(nn.Module):
    """Attention and an inner part, each after its norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden_size
        self.heads = sizes.num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x_BLH: torch.Tensor) -> torch.Tensor:
        batch, length, hidden = x_BLH.shape
        parts = self.qkv(self.norm_1(x_BLH)).split(hidden, dim=2)
        q, k, v = (p.view(batch, length, self.heads, -1).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLH = x_BLH + self.out(y.transpose(1, 2).reshape(batch, length, hidden))
        inner = F.gelu(self.up(self.norm_2(x_BLH)), approximate="tanh")
        made_BLH: torch.Tensor = x_BLH + self.down(inner)
        return made_BLH


class Gpt(nn.Module):
    """With one table for what is read and what is told."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocab_size, sizes.hidden_size)
        self.places = nn.Embedding(sizes.max_length, sizes.hidden_size)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.num_layers))
        self.norm = nn.LayerNorm(sizes.hidden_size)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * sizes.num_layers) ** deep))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        """The loss."""
        x = self.tokens(ids_BL) + self.places(torch.arange(ids_BL.shape[1]))
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.norm(x[:, :-1]), self.tokens.weight)
        loss: torch.Tensor = F.cross_entropy(logits.flatten(0, 1), ids_BL[:, 1:].flatten())
        return loss


def batches(blocks: Any, sizes: Sizes) -> Iterator[torch.Tensor]:
    """Every block once an epoch, in an order drawn anew."""
    rng = np.random.default_rng(sizes.seed)
    while True:
        drawn = rng.permutation(len(blocks))
        for at in range(0, len(drawn) - sizes.batch_size + 1, sizes.batch_size):
            yield torch.from_numpy(blocks[drawn[at : at + sizes.batch_size]].astype(np.int64))


def rate_at(step: int, sizes: Sizes) -> float:
    """Linear, after a warm-up, as the recipe's."""
    warm = round(0.06 * sizes.steps)
    if step < warm:
        return step / max(1, warm)
    return max(0.0, (sizes.steps - step) / max(1, sizes.steps - warm))


def tell(step: int, loss: float) -> None:
    """One point of the curve."""
    print(json.dumps({"step": step, "loss": round(loss, 6)}), flush=True)


class Clock:
    """Tokens per second from step `skipped` on."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._begun = (0.0, 0.0)

    def step_done(self, step: int) -> None:
        if step == self._sizes.skipped:
            self._begun = (time.process_time(), time.perf_counter())

    def read(self) -> dict[str, float]:
        cpu_s, wall_s = time.process_time() - self._begun[0], time.perf_counter() - self._begun[1]
        sizes = self._sizes
        tokens = (sizes.steps - sizes.skipped) * sizes.batch_size * sizes.max_length
        return {"tokens_per_cpu_s": tokens / cpu_s, "tokens_per_s": tokens / wall_s}


def loop(blocks: Any, held: Any, sizes: Sizes) -> dict[str, float]:
    """As nanoGPT."""
    model = Gpt(sizes)
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": 0.01},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=sizes.learning_rate, fused=True)
    clock, data = Clock(sizes), batches(blocks, sizes)
    total = torch.zeros(())
    for step in range(sizes.steps):
        for group in optimizer.param_groups:
            group["lr"] = sizes.learning_rate * rate_at(step, sizes)
        loss = model(next(data))
        loss.backward()
        total += loss.detach()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % sizes.log_steps == 0:
            tell(step + 1, float(total) / sizes.log_steps)
            total.zero_()
        clock.step_done(step + 1)
    return clock.read() | {"loss": mean_loss(model, held)}


def trainer(blocks: Any, held: Any, sizes: Sizes) -> dict[str, float]:
    """Transformers' own, which tells nobody and keeps nothing."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    clock = Clock(sizes)

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.step_done(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                tell(state.global_step, logs["loss"])

    config = GPT2Config(
        vocab_size=sizes.vocab_size,
        n_embd=sizes.hidden_size,
        n_layer=sizes.num_layers,
        n_head=sizes.num_heads,
        n_positions=sizes.max_length,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    arguments = TrainingArguments(
        output_dir=".",
        max_steps=sizes.steps,
        per_device_train_batch_size=sizes.batch_size,
        learning_rate=sizes.learning_rate,
        warmup_steps=round(0.06 * sizes.steps),
        weight_decay=0.01,
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_steps=sizes.log_steps,
        seed=sizes.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": block.tolist(), "labels": block.tolist()} for block in blocks]
    learner: Any = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Told()])
    learner.remove_callback(PrinterCallback)
    learner.train()
    read = clock.read()
    return read | {"loss": mean_loss(lambda x: model(input_ids=x, labels=x).loss, held)}


def mean_loss(loss: Any, held: Any) -> float:
    """Over all blocks."""
    with torch.inference_mode():
        found = [float(loss(torch.from_numpy(b[None].astype(np.int64)))) for b in held]
    return sum(found) / len(found)


def main() -> int:
    arm, path, said = sys.argv[1:]
    sizes = msgspec.json.decode(said, type=Sizes)
    torch.set_num_threads(sizes.threads)
    torch.manual_seed(sizes.seed)
    with np.load(path) as blocks:
        learned, held = blocks["train"], blocks["validation"]
    print(json.dumps({"loop": loop, "trainer": trainer}[arm](learned, held, sizes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
