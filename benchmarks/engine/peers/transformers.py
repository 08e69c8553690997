"""Transformers' `generate`: one batch of prompts of one length, all together from start to end.

Weights in bf16 only: it has no int8 or int4 for CPUs that is quicker.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.engine.peers.protocol import Request, Run, Setup, serve


def load(setup: Setup) -> tuple[Run, dict[str, Any]]:
    """The model, and a run that takes the time after each step."""
    import torch
    import transformers

    model = load_model(setup)

    def run(requests: list[Request]) -> list[list[float]]:
        ids = torch.tensor([request.prompt for request in requests])
        num_new = max(request.num_new for request in requests)
        times: list[float] = []

        def clock(ids: Any, scores: Any, **_: Any) -> Any:
            times.append(time.perf_counter() - began)
            return torch.zeros(len(requests), dtype=torch.bool)

        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=num_new,
                min_new_tokens=num_new,
                do_sample=False,
                pad_token_id=0,
                stopping_criteria=transformers.StoppingCriteriaList([clock]),
            )
        return [list(times) for _ in requests]

    return run, {"version": transformers.__version__}


def load_model(setup: Setup) -> Any:
    """In bf16. Raises RuntimeError for another precision."""
    import torch
    import transformers

    if setup.precision != "bf16":
        raise RuntimeError(f"no {setup.precision} on CPU")
    torch.set_num_threads(setup.num_threads)
    cls = transformers.AutoModelForCausalLM
    return cls.from_pretrained(setup.model, dtype=torch.bfloat16).eval()


if __name__ == "__main__":
    sys.exit(serve(load))
