"""Tokenizers that are trained here: the same texts give the same one, in whatever process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmos.programs.train.vocabulary import encode, train_tokenizer, wrap
from tests.contract.train.data import sentences

TEXTS = [text for text, _ in sentences(200)] + ["电影很好看", "Æther, naïve façade!"]
AGAIN = """
import hashlib, sys
from llmos.programs.train.vocabulary import train_tokenizer
texts = sys.stdin.read().splitlines()
made = train_tokenizer(sys.argv[1], texts, 500, lowercase=True)
print(hashlib.sha256(made.to_str().encode()).hexdigest())
"""


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_two_processes_make_the_same_tokenizer(family: str) -> None:
    made = {
        subprocess.run(
            [sys.executable, "-c", AGAIN, family],
            input="\n".join(TEXTS),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(3)
    }
    assert len(made) == 1


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_texts_come_back_whole(family: str) -> None:
    made = wrap(train_tokenizer(family, TEXTS, 500, lowercase=True), family, 64)
    (ids,) = encode(made, ["good film start"], 64)
    assert made.decode(ids, skip_special_tokens=True).strip() == "good film start"
    (cut,) = encode(made, ["good film start " * 50], 12)
    assert len(cut) == 12
