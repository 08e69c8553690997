"""Tokenizers that are trained here, each in the way of its family; and those that come with a base.

BERT's: WordPiece over lower-case words, Chinese by the character. GPT-2's and Llama's: BPE over
bytes. T5's: BPE over bytes, with the sentinels of its objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llmos.errors import InvalidRequest

WORD_PIECES = ("bert", "modernbert", "vit")
"""Families with BERT's."""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END = "<|endoftext|>"
PAD = "<pad>"
NUM_SENTINELS = 100
FILE = "tokenizer.json"
AT_ONCE = 1000


def train_tokenizer(family: str, texts: Iterable[str], vocab_size: int, *, lowercase: bool) -> Any:
    """A `tokenizers.Tokenizer`. Deterministic: the same texts give the same one."""
    if family in WORD_PIECES:
        return _wordpiece(texts, vocab_size, lowercase)
    return _bytes(texts, vocab_size, sentinels=family == "t5")


def _wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool) -> Any:
    """The trainer numbers pieces that go on within a word as it meets them, in the order of a hash
    table, and breaks ties by those numbers: so they are numbered before."""
    from tokenizers import Tokenizer, decoders, models, processors, trainers

    texts = list(texts)
    learner = _bert(models.WordPiece(unk_token=SPECIALS[1]), lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIALS, *(f"##{char}" for char in _inner_chars(learner, texts))],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    vocabulary = learner.get_vocab()
    tokenizer: Tokenizer = _bert(models.WordPiece(vocabulary, unk_token=SPECIALS[1]), lowercase)
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _bert(model: Any, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _inner_chars(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Characters that stand within words, by their code."""
    found: set[str] = set()
    for text in texts:
        plain = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(plain):
            found.update(word[1:])
    return sorted(found)


def _bytes(texts: Iterable[str], vocab_size: int, *, sentinels: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [END]
    if sentinels:
        specials = [PAD, END, *(f"<extra_id_{i}>" for i in range(NUM_SENTINELS))]
    if vocab_size < 256 + len(specials):
        raise InvalidRequest(
            f"recipe: model.vocab_size: bytes and what is special are {256 + len(specials)} "
            "entries already",
            param="recipe.model.vocab_size",
        )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if sentinels:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}",
            pair=f"$A {END} $B {END}",
            special_tokens=[(END, tokenizer.token_to_id(END))],
        )
    return tokenizer


def wrap(tokenizer: Any, family: str, max_length: int) -> Any:
    """As Transformers' fast tokenizer, with its special tokens named."""
    from transformers import PreTrainedTokenizerFast as Fast

    if family in WORD_PIECES:
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        specials: dict[str, Any] = dict(zip(names, SPECIALS, strict=True))
    elif family == "t5":
        specials = {"pad_token": PAD, "eos_token": END}
    else:
        specials = {"bos_token": END, "eos_token": END, "pad_token": END}
    made: Any = Fast
    return made(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **specials,
    )


def load(folder: Path) -> Any:
    """A base's tokenizer. Raises InvalidRequest for one that has none, or no fast one."""
    from transformers import AutoTokenizer

    if not (folder / FILE).is_file():
        raise InvalidRequest("the base has no tokenizer.json", param="recipe.base")
    made = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if made.pad_token is None:
        made.pad_token = made.eos_token or made.unk_token
    if made.pad_token is None:
        raise InvalidRequest("the base's tokenizer has nothing to pad with", param="recipe.base")
    return made


def encode(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of every text, with what the model wants around it, cut to `max_length`."""
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.enable_truncation(max_length)
    return [e.ids for e in fast.encode_batch_fast(texts)]


def encode_bare(tokenizer: Any, texts: list[str]) -> Iterator[list[int]]:
    """Token ids of every text as it is, some at a time: nothing around, nothing cut."""
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.no_truncation()
    for at in range(0, len(texts), AT_ONCE):
        part = texts[at : at + AT_ONCE]
        yield from (e.ids for e in fast.encode_batch_fast(part, add_special_tokens=False))


def encode_pairs(tokenizer: Any, pairs: list[tuple[str, str]], max_length: int) -> Any:
    """As `encode`, of two texts each: `(ids, type ids)`."""
    fast = tokenizer.backend_tokenizer
    fast.no_padding()
    fast.enable_truncation(max_length)
    return [(e.ids, e.type_ids) for e in fast.encode_batch(pairs)]
