"""Training of both models. One thread, fixed seeds: the same machine gives the same bytes.

Sentiment: binary cross-entropy with the probability that the text was made with. Vectors: the other
text of a pair is told from those of the rest of the batch (InfoNCE; Gao et al., SimCSE, 2021).
"""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Length, Hidden

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel

from tools.small import corpus, tokenizer


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights, besides the code, the lists and the versions. `calm` is the
    share of the steps until texts are as noisy as they get."""

    steps: int
    batch_size: int
    seed: int = 8401
    hidden_size: int = 96
    num_hidden_layers: int = 2
    intermediate_size: int = 192
    learning_rate: float = 2e-3
    temperature: float = 0.05
    initializer_range: float = 0.05
    calm: float = 0.3


SENTIMENT = Recipe(steps=3000, batch_size=64)
EMBEDDING = Recipe(
    steps=1200,
    batch_size=96,
    hidden_size=128,
    num_hidden_layers=1,
    intermediate_size=256,
    learning_rate=3e-3,
)


def config(recipe: Recipe, vocab_size: int, **fields: Any) -> BertConfig:
    """The architecture, as Transformers names it."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=4,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=tokenizer.MAX_LENGTH,
        type_vocab_size=1,
        initializer_range=recipe.initializer_range,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.PAD_ID,
        **fields,
    )


def fix_arithmetic(seed: int) -> None:
    """One thread and deterministic kernels: the order of every addition is fixed."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def encode(text: Tokenizer, batch: Sequence[str]) -> dict[str, torch.Tensor]:
    """Padded rows."""
    rows = [encoding.ids[: tokenizer.MAX_LENGTH] for encoding in text.encode_batch(list(batch))]
    longest = max(map(len, rows))
    ids_BL = torch.full((len(rows), longest), tokenizer.PAD_ID)
    mask_BL = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        ids_BL[number, : len(row)] = torch.tensor(row)
        mask_BL[number, : len(row)] = 1
    return {"input_ids": ids_BL, "attention_mask": mask_BL}


def sentiment(recipe: Recipe = SENTIMENT) -> tuple[BertForSequenceClassification, float]:
    """The trained model, and how many seconds that took."""
    fix_arithmetic(recipe.seed)
    text, rng = tokenizer.make(), random.Random(recipe.seed)
    labels = {0: "negative", 1: "positive"}
    model = BertForSequenceClassification(
        config(
            recipe,
            text.get_vocab_size(),
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
        )
    )

    def loss(done: float) -> torch.Tensor:
        noise = min(1.0, done / recipe.calm)
        batch = [corpus.sentiment(rng, noise) for _ in range(recipe.batch_size)]
        logits = model(**encode(text, [example.text for example in batch])).logits
        good = torch.tensor([example.good for example in batch])
        return torch.nn.functional.cross_entropy(logits, torch.stack((1 - good, good), dim=1))

    return model, _learn(model, recipe, loss)


def embedding(recipe: Recipe = EMBEDDING) -> tuple[BertModel, float]:
    """As `sentiment`."""
    fix_arithmetic(recipe.seed)
    text, rng = tokenizer.make(), random.Random(recipe.seed)
    model = BertModel(config(recipe, text.get_vocab_size()), add_pooling_layer=False)

    def loss(done: float) -> torch.Tensor:
        batch = list(corpus.pairs(rng, recipe.batch_size))
        first = embed(model, text, [one for one, _ in batch])
        second = embed(model, text, [other for _, other in batch])
        scores = first @ second.T / recipe.temperature
        target = torch.arange(len(batch))
        both = torch.nn.functional.cross_entropy(scores, target)
        return (both + torch.nn.functional.cross_entropy(scores.T, target)) / 2

    return model, _learn(model, recipe, loss)


def embed(model: BertModel, text: Tokenizer, batch: Sequence[str]) -> torch.Tensor:
    """The mean over the tokens of each text, of length one."""
    inputs = encode(text, batch)
    hidden_BLH = model(**inputs).last_hidden_state
    mask_BL1 = inputs["attention_mask"].unsqueeze(-1).to(hidden_BLH.dtype)
    mean_BH = (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
    return torch.nn.functional.normalize(mean_BH, dim=-1)


def _forget_places(model: torch.nn.Module) -> None:
    """All places are alike at first, and those that no text was long enough for stay so."""
    places = model.get_parameter(
        next(name for name, _ in model.named_parameters() if "position_embeddings" in name)
    )
    torch.nn.init.zeros_(places)


def _learn(model: torch.nn.Module, recipe: Recipe, loss: Callable[[float], torch.Tensor]) -> float:
    """AdamW, a rate that rises over a tenth of the steps and falls to zero over the rest."""
    started_s, told = time.process_time(), 0.0
    _forget_places(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    model.train()
    for step in range(recipe.steps):
        warm = max(1, recipe.steps // 10)
        share = min((step + 1) / warm, (recipe.steps - step) / (recipe.steps - warm))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        value = loss(step / recipe.steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        told += value.item()
        if (step + 1) % 100 == 0:
            spent_s = time.process_time() - started_s
            print(f"step {step + 1} loss {told / 100:.4f} {spent_s:.0f} s", flush=True)
            told = 0.0
    model.eval()
    return time.process_time() - started_s
