"""How well the answers of a model are rewarded: its likeliest ones, to every prompt of a split.

Learning compares answers that are drawn; these are not, so measuring draws from no generator.
"""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Length

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llmos.programs.train.examples import Examples
from llmos.programs.train.preference import near_target

MEASURED = 256
"""Prompts of a split that are answered."""

BATCH_SIZE = 16


class Rewarded:
    """Both lengths are in tokens."""

    def __init__(self, tokenizer: Any, prompt_length: int, answer_length: int) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._answer_length = answer_length

    def score(self, model: Any, measured: Examples) -> dict[str, float]:
        """The mean over the first prompts."""
        rows: Any = measured.rows[:MEASURED]
        rewards = near_target(self._answers(model, rows), [row["target"] for row in rows])
        return {"reward": sum(rewards) / len(rewards)}

    def show(self, model: Any, measured: Examples, number: int) -> list[dict[str, Any]]:
        """The first answers, for people."""
        rows: Any = measured.rows[:number]
        return [
            {"input": row["prompt"], "output": answer, "expected": row["target"]}
            for row, answer in zip(rows, self._answers(model, rows), strict=True)
        ]

    def _answers(self, model: Any, rows: Sequence[dict[str, Any]]) -> list[str]:
        made: list[str] = []
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                for at in range(0, len(rows), BATCH_SIZE):
                    made += self._batch(model, [r["prompt"] for r in rows[at : at + BATCH_SIZE]])
        finally:
            model.train(was_training)
        return made

    def _batch(self, model: Any, prompts: list[str]) -> list[str]:
        tokenizer = self._tokenizer
        pad_id = (
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        ids = [tokenizer(text)["input_ids"][-self._prompt_length :] for text in prompts]
        longest = max(map(len, ids))
        ids_BL = torch.tensor([[pad_id] * (longest - len(one)) + one for one in ids])
        mask_BL = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids])
        made_BL = model.generate(
            input_ids=ids_BL.to(model.device),
            attention_mask=mask_BL.to(model.device),
            max_new_tokens=self._answer_length,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad_id,
        )
        told: list[str] = tokenizer.batch_decode(made_BL[:, longest:], skip_special_tokens=True)
        return told
