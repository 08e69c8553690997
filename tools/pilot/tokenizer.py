"""The tokenizer: byte-level BPE on our own text, and the chat template.

Digits and Chinese characters are always tokens of their own, so that a sum is seen digit by digit
and a Chinese word is spelled the same way wherever it stands. Any Unicode text has tokens, since
every byte has one.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.pilot.corpus import Document, documents, text

VOCAB_SIZE = 2048
NUM_DOCUMENTS = 20_000
CONTEXT_LENGTH = 1024
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
END_OF_TEXT_ID, START_ID, END_ID = 0, 1, 2
IGNORED = -100  # a label that is not learned

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train(num_documents: int = NUM_DOCUMENTS) -> Tokenizer:
    """The tokenizer of the generator's first documents; the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=3,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    read = itertools.islice(documents("tokenizer"), num_documents)
    tokenizer.train_from_iterator((text(found) for found in read), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_LENGTH,
        "bos_token": END_OF_TEXT,
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [START, END],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    written = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(written, encoding="utf-8")


def encode(tokenizer: Tokenizer, found: Document) -> tuple[list[int], list[int]]:
    """Token ids of a document and the labels, equally long.

    Learned are the assistant's words with their end of turn, and all of a plain text.
    """

    def ids_of(piece: str) -> list[int]:
        return list(tokenizer.encode(piece, add_special_tokens=False).ids)

    if isinstance(found, str):
        plain = [END_OF_TEXT_ID, *ids_of(found), END_OF_TEXT_ID]
        return plain, plain
    ids: list[int] = []
    labels: list[int] = []
    for message in found:
        head = [START_ID, *ids_of(message.role + "\n")]
        body = [*ids_of(message.content), END_ID]
        tail = ids_of("\n")
        ids += head + body + tail
        learned = body if message.role == "assistant" else [IGNORED] * len(body)
        labels += [IGNORED] * len(head) + learned + [IGNORED] * len(tail)
    return ids, labels
