"""Text without labels: words that were hidden, the next token, spans that were hidden.

All text is one stream, cut into blocks of equal length: nothing is padding. Documents follow each
other with what the family puts between them.
"""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Length, Hidden,
# Number told, Vocabulary

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train import nexttoken, vocabulary
from llmos.programs.train.examples import Batch, Examples, padded
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import TRAIN, Method, Objective, Recipe
from llmos.programs.train.rows import texts_of
from llmos.programs.train.work import Setting, Work, mean_loss

SPAN_TOKENS = 3.0
"""Mean length of a hidden span (Raffel et al., 2020)."""

SAMPLE_TOKENS = 40

TOLD_AT_ONCE = 128
"""Hidden words are told in multiples of this: for every new size of a matrix, libraries make and
keep something."""

IGNORED = -100
"""The label of a token that is not to be told."""


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for too little text to fill a block."""
    recipe, rows = setting.recipe, setting.rows
    objective, column = recipe.objective, recipe.data.text
    texts = {split: texts_of(rows[split], column, split) for split in rows}
    tokenizer = setting.tokenizer(texts[TRAIN])
    kind = {
        Objective.MASKED: "AutoModelForMaskedLM",
        Objective.CAUSAL: "AutoModelForCausalLM",
        Objective.DENOISE: "AutoModelForSeq2SeqLM",
    }[objective]
    model = load_or_make(setting, kind, tokenizer)
    setting.check_vocabulary(model, tokenizer)
    collates: dict[Objective, Any] = {
        Objective.MASKED: _Masked,
        Objective.CAUSAL: _Causal,
        Objective.DENOISE: _Denoised,
    }
    collate = collates[objective](tokenizer, recipe.model.max_length, recipe.training.mask)
    examples = {}
    for split, found in texts.items():
        blocks = _blocks(tokenizer, found, collate.block, split)
        lengths = [collate.block] * len(blocks)
        examples[split] = Examples(blocks, lengths, collate, recipe.training.seed)

    own_loss = _own_loss(recipe, model)

    def score(model: Any, measured: Examples) -> dict[str, float]:
        loss = mean_loss(model, measured, own_loss)
        return {"loss": loss, "perplexity": math.exp(min(loss, 50.0))}

    work = Work(model, tokenizer, examples, score, facts={"block_tokens": collate.block})
    work.loss = own_loss
    if objective is Objective.CAUSAL:
        work.show = _Continue(tokenizer)
    return work


def _own_loss(recipe: Recipe, model: Any) -> Any:
    """The model's loss made cheaper, where it is known how; else None. What several processes learn
    together goes through the model as a whole."""
    if recipe.training.processes > 1:
        return None
    if nexttoken.suits(recipe, model):
        return nexttoken.loss
    training = recipe.training
    is_plain = training.precision == "float32" and training.label_smoothing == 0
    is_masked = is_plain and recipe.objective is Objective.MASKED and recipe.method is Method.FULL
    return _told_loss if is_masked and model.config.model_type in TELLERS else None


def _bert(model: Any) -> tuple[Any, Any]:
    return model.bert, model.cls


def _modernbert(model: Any) -> tuple[Any, Any]:
    return model.model, lambda hidden: model.decoder(model.head(hidden))


TELLERS = {"bert": _bert, "modernbert": _modernbert}
"""Of models that tell hidden words: the encoder, and what makes logits of what it has read."""


def _told_loss(model: Any, batch: Batch) -> torch.Tensor:
    """The model's own loss, with logits for the words alone that are to be told: those of all
    others are most of a small model's work, and count for nothing."""
    labels_M = batch["labels"].flatten()
    told_N = (labels_M != IGNORED).nonzero().flatten()
    num_more = -len(told_N) % TOLD_AT_ONCE
    told_N = torch.cat([told_N, told_N.new_zeros(num_more)])
    labels_N = torch.cat(
        [labels_M[told_N[: len(told_N) - num_more]], labels_M.new_full((num_more,), IGNORED)]
    )
    encoder, tell = TELLERS[model.config.model_type](model)
    hidden_BLH = encoder(input_ids=batch["input_ids"]).last_hidden_state
    logits_NV = tell(hidden_BLH.flatten(0, 1)[told_N])
    return torch.nn.functional.cross_entropy(logits_NV.float(), labels_N)


def _blocks(tokenizer: Any, texts: list[str], size: int, split: str) -> Any:
    """The stream, cut; what is left over at the end is left out."""
    end = tokenizer.eos_token_id
    end = tokenizer.sep_token_id if end is None else end
    parts = []
    for ids in vocabulary.encode_bare(tokenizer, texts):
        parts.append(np.asarray(ids, dtype=np.int32))
        parts.append(np.asarray([end], dtype=np.int32))
    stream = np.concatenate(parts)
    number = len(stream) // size
    if not number:
        raise InvalidRequest(
            f"{split}: {len(stream)} tokens do not fill a block of {size}: a smaller "
            "model.max_length, or more text",
            param=f"files.{split}",
        )
    return stream[: number * size].reshape(number, size)


class _Causal:
    """Every token from those before it."""

    def __init__(self, tokenizer: Any, max_length: int, share: float) -> None:
        self.block = max_length

    def __call__(self, rows: list[Any], rng: np.random.Generator) -> Batch:
        ids_BL = torch.from_numpy(np.stack(rows).astype(np.int64))
        return {"input_ids": ids_BL, "labels": ids_BL}


class _Masked:
    """A share of the tokens is to be told: 8 of 10 are hidden, one is another, one stays as it is
    (Devlin et al., 2019). Drawn anew in every epoch; of every row one at least."""

    def __init__(self, tokenizer: Any, max_length: int, share: float) -> None:
        self.block = max_length - 2
        self._share = share
        self._mask, self._size = tokenizer.mask_token_id, len(tokenizer)
        self._around = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        if None in (self._mask, *self._around):
            raise InvalidRequest("the base has no [MASK]: it is no encoder", param="recipe.base")

    def __call__(self, rows: list[Any], rng: np.random.Generator) -> Batch:
        true_BL = np.stack(rows).astype(np.int64)
        drawn_BL = rng.random(true_BL.shape)
        least_B1 = drawn_BL.min(axis=1, keepdims=True)
        chosen_BL = (drawn_BL < self._share) | (drawn_BL == least_B1)
        fate_BL = rng.random(true_BL.shape)
        other_BL = rng.integers(0, self._size, true_BL.shape)
        seen_BL = np.where(chosen_BL & (fate_BL < 0.8), self._mask, true_BL)
        seen_BL = np.where(chosen_BL & (fate_BL >= 0.9), other_BL, seen_BL)
        labels_BL = np.where(chosen_BL, true_BL, IGNORED)
        first, last = self._around
        inputs = _framed(seen_BL, first, last)
        return {"input_ids": inputs, "labels": _framed(labels_BL, IGNORED, IGNORED)}


def _framed(inner: Any, first: int, last: int) -> torch.Tensor:
    return torch.from_numpy(
        np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last)))
    )


class _Denoised:
    """Spans become sentinels; the answer names each and what it was (Raffel et al., 2020)."""

    def __init__(self, tokenizer: Any, max_length: int, share: float) -> None:
        first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        known = tokenizer.get_vocab()
        names = (f"<extra_id_{i}>" for i in range(vocabulary.NUM_SENTINELS))
        self._sentinels = [known[name] for name in names if name in known]
        if first is None or not self._sentinels:
            raise InvalidRequest("the base has no <extra_id_0>: it is no T5", param="recipe.base")
        self._end = tokenizer.eos_token_id
        self._pad = tokenizer.pad_token_id
        self._share = share
        self.block = max_length - 1

    def __call__(self, rows: list[Any], rng: np.random.Generator) -> Batch:
        inputs, labels = zip(*(self._hide(row.tolist(), rng) for row in rows), strict=True)
        ids_BL = padded(inputs, self._pad)
        return {
            "input_ids": ids_BL,
            "attention_mask": (ids_BL != self._pad).long(),
            "labels": padded(labels, IGNORED),
        }

    def _hide(self, row: list[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
        hidden = max(1, round(len(row) * self._share))
        spans = max(1, min(round(hidden / SPAN_TOKENS), len(self._sentinels), len(row) - hidden))
        inputs: list[int] = []
        labels: list[int] = []
        at = 0
        gaps = _parts(len(row) - hidden, spans, rng)
        for number, (gap, size) in enumerate(zip(gaps, _parts(hidden, spans, rng), strict=True)):
            sentinel = self._sentinels[number]
            inputs += [*row[at : at + gap], sentinel]
            labels += [sentinel, *row[at + gap : at + gap + size]]
            at += gap + size
        return [*inputs, self._end], [*labels, self._end]


def _parts(total: int, number: int, rng: np.random.Generator) -> list[int]:
    """`number` positive integers that add up to `total`."""
    if number == 1:
        return [total]
    cuts = (np.sort(rng.choice(total - 1, number - 1, replace=False)) + 1).tolist()
    return [after - before for before, after in itertools.pairwise([0, *cuts, total])]


class _Continue:
    """Shows how the model goes on from the first tokens of validation blocks."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, model: Any, examples: Examples, number: int) -> list[dict[str, Any]]:
        shown = []
        was_training = model.training
        model.eval()
        for row in range(min(number, len(examples), 1)):
            ids = np.asarray(examples.rows[row]).astype(np.int64)[
                : max(1, examples.lengths[row] // 4)
            ]
            given_1L = torch.from_numpy(ids)[None].to(model.device)
            room = int(examples.lengths[row]) - len(ids)
            with torch.inference_mode():
                made = model.generate(
                    given_1L,
                    attention_mask=torch.ones_like(given_1L),
                    max_new_tokens=max(1, min(SAMPLE_TOKENS, room)),
                    do_sample=False,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
            shown.append(
                {
                    "input": self._tokenizer.decode(ids.tolist()),
                    "output": self._tokenizer.decode(made[0, len(ids) :].tolist()),
                }
            )
        model.train(was_training)
        return shown
