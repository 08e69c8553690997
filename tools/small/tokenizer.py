"""One tokenizer for both models: a list of words, and smaller pieces for what is on no list.

Unigram (Kudo, 2018) with scores given, not learned: a word of the lists costs less than any way to
put it together, a longer one less than two. Chinese needs no other segmentation than that.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from tools.small import corpus, lexicon

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID = 0, 1, 2, 3
MAX_LENGTH = 256
SPACE = "▁"


def make() -> Tokenizer:
    """Lower case, NFKC, words and punctuation apart, `[CLS] text [SEP]`."""
    tokenizer = Tokenizer(models.Unigram(_vocabulary(), UNK_ID, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"n't\b"), " n't"),
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\w\s'’\-]"), "isolated"),
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="always"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", CLS_ID), ("[SEP]", SEP_ID)],
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _vocabulary() -> list[tuple[str, float]]:
    """Pieces and their log-probabilities, as far as they are any."""
    found: dict[str, float] = dict.fromkeys(SPECIALS, 0.0)

    def add(piece: str, score: float) -> None:
        found[piece] = max(score, found.get(piece, -1e9))

    for char in SPACE + string.ascii_lowercase + string.digits + string.punctuation + "…、。":
        add(char, -9.0)
    for char in lexicon.han():
        add(char, -9.0)
    for piece in lexicon.pieces():
        add(piece, -11.0)
    english = [*lexicon.weights("en"), *lexicon.neutral("en")]
    chinese = [*lexicon.weights("zh"), *lexicon.neutral("zh")]
    for concept in lexicon.concepts():
        english += [word for phrase in concept[0] for word in phrase.lower().split()]
        chinese += concept[1] if len(concept) > 1 else []
    english += corpus.own_words("en")
    chinese += corpus.own_words("zh")
    for word in english:
        add(SPACE + word, -8.0)
    for word in chinese:
        for char in word:
            add(char, -9.0)
        add(word, -10.0)  # less than two characters, whatever they are
    return list(found.items())


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write it as Transformers reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_LENGTH,
        **dict(zip(names, SPECIALS, strict=True)),
    }
    text = json.dumps(settings, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
