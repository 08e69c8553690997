"""Models of random weights for measurements: real shapes, real files, nothing learned.

`folder("60m")` makes the model once and keeps it outside the repository, in the folder of env
LLMOS_BENCH_CACHE (default: the system's temporary folder). The tokenizer is a byte-level BPE
trained on generated text; its vocabulary is filled up, so that every id a model draws has a text.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

VERSION = 1
"""Part of the folder's name: a change of what is written here must not meet old files."""

NUM_SENTENCES = 4000
NUM_TRAINED = 2048
SYLLABLES = ("ka re mi to lu sen do va ni pel sho ra", "qui ton be lar 你 好 山 水")


@dataclass(frozen=True)
class Shape:
    """A Transformers configuration by name of its class, and the dtype of the files."""

    config_class: str
    dtype: str
    config: dict[str, Any]

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])


def _llama(dtype: str) -> Shape:
    sizes = {
        "vocab_size": 16384,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    return Shape("LlamaConfig", dtype, sizes)


def _qwen(dtype: str) -> Shape:
    """Qwen2-0.5B with a smaller vocabulary: 0.39 B parameters."""
    sizes = {
        "vocab_size": 32768,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    return Shape("Qwen2Config", dtype, sizes)


def _longer(shape: Shape) -> Shape:
    """The same weights, said to be good for a context of 16k."""
    return replace(shape, config={**shape.config, "max_position_embeddings": 16384})


SHAPES = {
    "60m": _llama("bfloat16"),
    "60m-fp32": _llama("float32"),
    "0.4b": _qwen("bfloat16"),
    "0.4b-fp32": _qwen("float32"),
    "60m-long": _longer(_llama("bfloat16")),
    "0.4b-long": _longer(_qwen("bfloat16")),
}


def cache() -> Path:
    """Where all that is made once for measurements is kept."""
    return Path(os.environ.get("LLMOS_BENCH_CACHE") or tempfile.gettempdir()) / "llmos-bench"


def folder(name: str) -> Path:
    """The model's folder, made if it is not there. Whole or absent: it is renamed into place."""
    made = cache() / f"{name}-v{VERSION}"
    if not made.exists():
        cache().mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache()))
        try:
            make(SHAPES[name], scratch)
            scratch.rename(made)
        except OSError:
            if not made.exists():  # else another run was first
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return made


def make(shape: Shape, into: Path) -> None:
    """Write weights, configuration and tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = getattr(transformers, shape.config_class)(
        **shape.config, bos_token_id=0, eos_token_id=0
    )
    cls = transformers.AutoModelForCausalLM
    dtype = getattr(torch, shape.dtype)
    model = cls.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.save_pretrained(into)
    write_tokenizer(into, shape.vocab_size)


def write_tokenizer(into: Path, vocab_size: int) -> None:
    """A byte-level BPE of exactly `vocab_size` entries, the last ones never produced by text."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        sentences(), min(NUM_TRAINED, vocab_size), special_tokens=["<end>"], show_progress=False
    )
    body = json.loads(trained.to_str())
    vocab = body["model"]["vocab"]
    for index in range(len(vocab), vocab_size):
        vocab[f"~{index}"] = index
    (into / "tokenizer.json").write_text(json.dumps(body, ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (into / "tokenizer_config.json").write_text(json.dumps(settings))


def sentences() -> Iterator[str]:
    """Text that looks like text to a tokenizer: words of a few syllables, the same every time."""
    draw, syllables = random.Random(0), " ".join(SYLLABLES).split()
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(3000)]
    for _ in range(NUM_SENTENCES):
        yield " ".join(draw.choices(words, k=draw.randint(4, 16))) + "."


def tokens(count: int, seed: int, vocab_size: int) -> list[int]:
    """A prompt of so many random tokens, none of them special."""
    draw = random.Random(seed)
    return [draw.randrange(256, vocab_size) for _ in range(count)]
