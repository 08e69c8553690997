"""Bytes of gradients and of the optimizer's state after one step: LoRA beside all weights."""

from __future__ import annotations

import warnings
from typing import Any

from benchmarks import harness

SHAPE: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
VOCAB, LENGTH = 20_000, 32


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


def measure(result: harness.Result) -> None:
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
