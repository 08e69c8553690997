"""A LoRA fine-tune as one would write it with Transformers and PEFT, in a process of its own:
`python -m benchmarks.train.tune MODEL BLOCKS SIZES`. Prints as `plain` does; of `SIZES`, those of
the model are the folder's own.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.train.plain import Sizes, batches, rate_at, tell

RANK = 8
DROPOUT = 0.05


def learn(model: Any, blocks: Any, sizes: Sizes) -> None:
    """All of its steps."""
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=sizes.learning_rate, weight_decay=0.01, fused=True)
    model.train()
    data = batches(blocks, sizes)
    for step in range(sizes.steps):
        for group in optimizer.param_groups:
            group["lr"] = sizes.learning_rate * rate_at(step, sizes)
        ids = next(data)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % sizes.log_steps == 0:
            tell(step + 1, float(loss.detach()))


def main() -> int:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder, path, said = sys.argv[1:]
    sizes = msgspec.json.decode(said, type=Sizes)
    torch.set_num_threads(sizes.threads)
    torch.manual_seed(sizes.seed)
    with np.load(path) as blocks:
        learned = blocks["train"]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=DROPOUT,
        target_modules="all-linear",
    )
    learn(get_peft_model(base, config), learned, sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
