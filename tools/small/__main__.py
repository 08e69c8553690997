"""`make small`: train both small models, write their folders, measure them, write their cards.

`--only sentiment` or `--only embedding` does one of them, `--measure` trains nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification, BertModel

from tools.small import bundle, card, evaluate, paths, tokenizer, train

DATA = Path(os.environ.get("LLMOS_TEST_DATA") or paths.ROOT.parent / "shared" / "data")


def _sentiment(is_trained: bool) -> None:
    folder = paths.SENTIMENT
    if not is_trained:
        model, spent_s = train.sentiment()
        bundle.write(model, train.SENTIMENT, spent_s, folder)
    text = tokenizer.make()
    made: Any = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    figures = {
        "rt-polarity": evaluate.sentiment(made, text, evaluate.rt_polarity(DATA)),
        "ChnSentiCorp": evaluate.sentiment(made, text, evaluate.chnsenticorp(DATA)),
    }
    bundle.write_json(folder / "evaluation.json", figures)
    card.write_sentiment(folder)
    bundle.check_size(folder)


def _embedding(is_trained: bool) -> None:
    folder = paths.EMBEDDING
    if not is_trained:
        model, spent_s = train.embedding()
        bundle.write(model, train.EMBEDDING, spent_s, folder)
        bundle.write_pooling(folder, train.EMBEDDING.hidden_size)
    text = tokenizer.make()
    made: Any = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    made.eval()
    banking = evaluate.labelled(DATA, "banking77_train.csv", "text", "category")
    shopping = evaluate.labelled(DATA, "online_shopping_sample.csv", "review", "cat")
    figures = {
        "banking77": evaluate.nearest(made, text, banking),
        "online_shopping": evaluate.nearest(made, text, shopping),
        "XQuAD, English to Chinese": evaluate.across(made, text, evaluate.translations(DATA)),
    }
    bundle.write_json(folder / "evaluation.json", figures)
    card.write_embedding(folder)
    bundle.check_size(folder)


def main() -> None:
    """Do all of it, or the part that is asked for."""
    parser = argparse.ArgumentParser(prog="make small", description=__doc__)
    parser.add_argument("--only", choices=("sentiment", "embedding"))
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    train.fix_arithmetic(0)
    if arguments.only != "embedding":
        _sentiment(arguments.measure)
    if arguments.only != "sentiment":
        _embedding(arguments.measure)


if __name__ == "__main__":
    main()
