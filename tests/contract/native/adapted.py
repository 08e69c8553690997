"""Adapters of a tiny model, as a run would leave them, with weights that were drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from llmos.programs.train.adapter import save_adapter
from llmos.programs.train.methods import apply_method
from llmos.programs.train.recipe import parse
from llmos.programs.train.work import Work

NUM_TOKENS = 3


def adapt(base: Path, method: str, into: Path) -> Any:
    """Write the folder of a version, an adapter over `base`; the model that has it, by PEFT."""
    import torch
    import transformers

    recipe = parse(
        {
            "name": "tiny",
            "objective": "causal",
            "base": "base",
            "method": method,
            "adapter": {"rank": 2, "tokens": NUM_TOKENS},
        }
    )
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    work = Work(model, None, {}, lambda *_: {})
    torch.manual_seed(11)
    apply_method(recipe, work, 9)
    with torch.no_grad():
        for parameter in work.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    work.model.eval()
    shutil.copytree(base, into)
    save_adapter(recipe, work.model, base, into)
    return work.model
