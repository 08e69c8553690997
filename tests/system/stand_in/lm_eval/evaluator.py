"""Multiple choice by `local-completions`: a choice's log-probability is its tokens' in the echo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from tokenizers import Tokenizer

from lm_eval.tasks import TaskManager


def simple_evaluate(
    model: str,
    model_args: dict[str, Any],
    tasks: list[str],
    num_fewshot: int | None = None,
    limit: int | None = None,
    bootstrap_iters: int = 100000,
    apply_chat_template: bool = False,
    task_manager: TaskManager | None = None,
) -> dict[str, Any]:
    assert model == "local-completions"
    assert not apply_chat_template
    assert task_manager is not None
    tokenizer = Tokenizer.from_file(str(Path(model_args["tokenizer"]) / "tokenizer.json"))
    results: dict[str, Any] = {}
    for task in tasks:
        config, right = task_manager.configs[task], []
        rows = task_manager.rows(task)[:limit]
        for row in rows:
            sums = [
                _loglikelihood(tokenizer, model_args, row["question"], f" {choice}")
                for choice in row["choices"]
            ]
            best = max(range(len(sums)), key=sums.__getitem__)
            right.append(float(best == row[config["doc_to_target"]]))
        results[task] = {"alias": task, "acc,none": sum(right) / len(right)}
    return {"results": results}


def _loglikelihood(tokenizer: Tokenizer, args: dict[str, Any], context: str, choice: str) -> float:
    context_ids = tokenizer.encode(context, add_special_tokens=False).ids
    ids = tokenizer.encode(context + choice, add_special_tokens=False).ids
    answer = httpx.post(
        args["base_url"],
        json={
            "model": args["model"],
            "prompt": [ids],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 1,
            "seed": 1234,
            "echo": True,
        },
        headers=args["header"],
        timeout=60,
    )
    answer.raise_for_status()
    told = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    return float(sum(told[len(context_ids) : -1]))
