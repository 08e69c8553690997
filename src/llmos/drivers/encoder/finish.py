"""From the results of an item's rows to its answer: one function per kind.

Formulas and defaults are those of Transformers' pipelines, so that equal scores come of equal
weights. Of a text in windows: classes by the mean of the windows' scores, weighted by tokens; a
document is as relevant as its best window; of vectors the mean, or what the pooling makes of more.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmos.abi.events import ItemOutput
from llmos.drivers.encoder.answers import find_answers
from llmos.drivers.encoder.entities import find_entities
from llmos.drivers.encoder.kinds import Head, Kind, Purpose, find_entailment
from llmos.drivers.encoder.pooling import Pooling
from llmos.drivers.encoder.words import Units, Words
from llmos.drivers.encoder.work import Open, num_given
from llmos.errors import InvalidRequest


class Described(Protocol):
    """What answers need to know of a model, whoever computes it."""

    @property
    def config(self) -> Any: ...

    @property
    def labels(self) -> list[str]: ...

    @property
    def pooling(self) -> Pooling: ...

    @property
    def purpose(self) -> Purpose: ...

    @property
    def folder(self) -> Path: ...


class Finisher:
    """Of one loaded model. Raises InvalidRequest for what cannot be had of it."""

    def __init__(self, loaded: Described, words: Words | None) -> None:
        self.loaded = loaded
        self._words = words
        self._units: Units | None = None

    @property
    def units(self) -> Units:
        """Of speech. Raises ModelRejected."""
        if self._units is None:
            self._units = Units(self.loaded.folder)
        return self._units

    @property
    def words(self) -> Words:
        """Raises InvalidRequest where the folder has no tokenizer."""
        if self._words is None:
            raise InvalidRequest("the model has no tokenizer", param="model")
        return self._words

    def finish(self, kind: str, opened: Open, params: dict[str, Any]) -> ItemOutput:
        """The item's answer."""
        value, data = _FINISH[kind](self, opened, params)
        return ItemOutput(opened.item.index, value, data, opened.item.note)

    def classify(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        scores = _mean(opened)
        function = params["function_to_apply"] or self._function()
        return self._ranked(_apply(function, scores), params["top_k"]), b""

    def boxes(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        """The surest first; corners in pixels of the image as it was sent."""
        logits_QC, boxes_Q4 = opened.results[0]
        scores_QC = _softmax(logits_QC)[:, :-1]  # the last class is that there is nothing
        best_Q = scores_QC.argmax(axis=-1)
        size = opened.item.about
        found = []
        for query, label in enumerate(best_Q.tolist()):
            score = float(scores_QC[query, label])
            if score > params["threshold"]:
                box = _corners(boxes_Q4[query], size["width"], size["height"])
                found.append({"label": self.loaded.labels[label], "score": score, "box": box})
        return sorted(found, key=lambda one: -one["score"]), b""

    def _ranked(self, scores: Any, top_k: int | None) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[:top_k]
        labels = self.loaded.labels
        return [{"label": labels[i], "score": float(scores[i])} for i in order]

    def _function(self) -> str:
        config = self.loaded.config
        problem = getattr(config, "problem_type", None)
        if problem == "regression":
            return "none"
        is_many = problem == "multi_label_classification"
        return "sigmoid" if is_many or len(self.loaded.labels) == 1 else "softmax"

    def rerank(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        best = max(float(scores[0]) for scores in opened.results)
        score = _apply(params["function_to_apply"], np.array([best], dtype=np.float32))
        return {"score": float(score[0])}, b""

    def zero_shot(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        entails = find_entailment(self.loaded.labels)
        logits = np.stack(opened.results)
        labels = params["candidate_labels"]
        assert entails is not None
        if params["multi_label"] or len(labels) == 1:
            against = -1 if entails == 0 else 0
            scores = _softmax(logits[:, [against, entails]])[:, 1]
        else:
            scores = _softmax(logits[:, entails])
        order = list(reversed(scores.argsort()))
        ranked = [{"label": labels[i], "score": float(scores[i])} for i in order]
        return ranked, b""

    def tokens(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        return find_entities(opened, params, self.loaded.labels, self.words), b""

    def answer(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        return find_answers(opened, params), b""

    def fill(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        """A list for each gap."""
        tokens, scores = opened.results[0]
        gaps = opened.item.about["gaps"]
        ids = np.frombuffer(opened.item.rows[0].tokens, dtype=np.int32)
        made = []
        for gap, candidates, values in zip(gaps, tokens, scores, strict=True):
            made.append(
                [
                    {
                        "score": value,
                        "token": token,
                        "token_str": self.words.decode([token]),
                        "sequence": self._filled(ids, gap, token, is_only=len(gaps) == 1),
                    }
                    for token, value in zip(candidates, values, strict=True)
                ]
            )
        return made, b""

    def _filled(self, ids: Any, gap: int, token: int, *, is_only: bool) -> str:
        """Other gaps stay to be seen, and with them all special tokens, as in Transformers."""
        changed = ids.copy()
        changed[gap] = token
        return self.words.decode(changed.tolist(), skip_special=is_only)

    def embed(self, opened: Open, params: dict[str, Any]) -> tuple[Any, bytes]:
        mode = params["pooling"] or self.loaded.pooling.mode
        vector = _join(opened.results, mode)
        wanted = params["dimensions"]
        if wanted is not None:
            if wanted > len(vector):
                raise InvalidRequest(
                    f"the model's vectors have {len(vector)} dimensions", param="dimensions"
                )
            vector = vector[:wanted]
        normalize = params["normalize"]
        if self.loaded.pooling.normalize if normalize is None else normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return None, vector.astype("<f4").tobytes()


def _written(finisher: Finisher, opened: Open, _: dict[str, Any]) -> tuple[Any, bytes]:
    """`finish_reason` as OpenAI's: it said all, or was cut at its bound. A prompt is the text's
    beginning, and its tokens are nobody's work."""
    tokens, reason = opened.results[0]
    text = finisher.words.decode(tokens, skip_special=True).strip()
    num_tokens = len(tokens) - num_given(opened)
    return {"text": text, "finish_reason": reason, "num_tokens": num_tokens}, b""


def _spoken(finisher: Finisher, opened: Open, _: dict[str, Any]) -> tuple[Any, bytes]:
    """All parts one after the other."""
    samples = np.concatenate(opened.results)
    rate = int(finisher.loaded.config.sampling_rate)
    about = {"sampling_rate": rate, "seconds": len(samples) / rate}
    return {"format": "pcm_s16le", **about, "seed": opened.item.about["seed"]}, to_pcm(samples)


def to_pcm(samples: Any) -> bytes:
    """Samples from -1 to 1 as whole numbers of 16 bits, little-endian."""
    whole: bytes = (np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()
    return whole


def _transcribed(finisher: Finisher, opened: Open, _: dict[str, Any]) -> tuple[Any, bytes]:
    """Of a recording in parts, their texts one after the other."""
    if finisher.loaded.purpose.head is Head.CTC:
        return {"text": finisher.units.spell(opened.results[0])}, b""
    texts = [finisher.words.decode(ids, skip_special=True).strip() for ids, _ in opened.results]
    return {"text": " ".join(text for text in texts if text)}, b""


def _corners(box: Any, width: int, height: int) -> dict[str, int]:
    x, y, w, h = (float(n) for n in box)
    return {
        "xmin": int((x - w / 2) * width),
        "ymin": int((y - h / 2) * height),
        "xmax": int((x + w / 2) * width),
        "ymax": int((y + h / 2) * height),
    }


def _mean(opened: Open) -> Any:
    if len(opened.results) == 1:
        return np.asarray(opened.results[0], dtype=np.float64)  # most items are one row
    weights = [row.cost for row in opened.item.rows]
    return np.average(np.stack(opened.results), axis=0, weights=weights)


def _join(parts: list[tuple[Any, int]], mode: str) -> Any:
    vectors = np.stack([vector for vector, _ in parts])
    if len(parts) == 1:
        return vectors[0]
    if mode == "max":
        return vectors.max(axis=0)
    if mode == "last":
        return vectors[-1]
    return np.average(vectors, axis=0, weights=[n for _, n in parts]).astype(np.float32)


def _apply(function: str, scores: Any) -> Any:
    if function == "sigmoid":
        return 1.0 / (1.0 + np.exp(-scores))
    return _softmax(scores) if function == "softmax" else scores


def _softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


_FINISH: dict[str, Callable[[Finisher, Open, dict[str, Any]], tuple[Any, bytes]]] = {
    Kind.CLASSIFY: Finisher.classify,
    Kind.RERANK: Finisher.rerank,
    Kind.ZERO_SHOT: Finisher.zero_shot,
    Kind.TOKENS: Finisher.tokens,
    Kind.ANSWER: Finisher.answer,
    Kind.FILL: Finisher.fill,
    Kind.EMBED: Finisher.embed,
    Kind.CLASSIFY_IMAGE: Finisher.classify,
    Kind.DETECT: Finisher.boxes,
    Kind.TRANSCRIBE: _transcribed,
    Kind.SUMMARIZE: _written,
    Kind.TRANSLATE: _written,
    Kind.CAPTION: _written,
    Kind.SPEAK: _spoken,
}
