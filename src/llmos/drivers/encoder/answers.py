"""Where in a context the answer to a question is: the best spans of all windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmos.drivers.encoder.work import Open


def find_answers(opened: Open, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Best first, no two of the same characters.

    A span's score is the probability of its first token times that of its last one, each among the
    tokens of the context in its window, as Transformers' pipeline has it. With
    `handle_impossible_answer` there may be the empty answer, as likely as in the window that finds
    it least likely.
    """
    context = opened.item.about
    found: dict[tuple[int, int], float] = {}
    nothing = 1.0
    for row, (starts, ends) in zip(opened.item.rows, opened.results, strict=True):
        special = np.frombuffer(row.special, dtype=np.uint8).astype(bool)
        offsets = np.frombuffer(row.offsets, dtype=np.int32).reshape(-1, 2)
        allowed = ~special
        allowed[0] = True  # the empty answer is what the first token stands for
        first, last = _probabilities(starts, allowed), _probabilities(ends, allowed)
        nothing = min(nothing, float(first[0] * last[0]))
        if special[0]:
            first[0] = last[0] = 0.0
        for begin, end, score in _spans(first, last, params["max_answer_len"], params["top_k"]):
            if special[begin] or special[end]:
                continue
            key = (int(offsets[begin, 0]), int(offsets[end, 1]))
            found[key] = max(found.get(key, 0.0), score)
    answers = [
        {"score": score, "start": start, "end": end, "answer": context[start:end]}
        for (start, end), score in found.items()
    ]
    if params["handle_impossible_answer"]:
        answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
    answers.sort(key=lambda answer: -answer["score"])
    return answers[: params["top_k"]]


def _probabilities(scores: Any, allowed: Any) -> Any:
    masked = np.where(allowed, scores, -10000.0)
    raised = np.exp(masked - masked.max())
    return raised / raised.sum()


def _spans(first: Any, last: Any, most_tokens: int, top_k: int) -> list[tuple[int, int, float]]:
    """Those that end where they begin or later, of so many tokens at most. LL probabilities."""
    both = np.triu(np.tril(np.outer(first, last), most_tokens - 1))
    flat = both.ravel()
    if top_k < len(flat):
        best = np.argpartition(-flat, top_k)[:top_k]
        best = best[np.argsort(-flat[best], kind="stable")]
    else:
        best = np.argsort(-flat, kind="stable")
    begins, ends = np.unravel_index(best, both.shape)
    return [
        (int(b), int(e), float(both[b, e]))
        for b, e in zip(begins, ends, strict=True)
        if b <= e < b + most_tokens
    ]
