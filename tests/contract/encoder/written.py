"""Texts to write from, and what Transformers' `generate` writes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers

KIND = "summarization"
TEXTS = [
    "the cat",
    "who lives in new york and paris?",
    "it is good or bad, the cat sat on a mat",
    "where is new york",
]


def generated(folder: Path, family: str, text: str, **how: Any) -> tuple[str, int]:
    """Of one text alone, drawn from nothing; and how many tokens that are."""
    model, tokenizer = _read(folder, family)
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, **how)[0]
    return tokenizer.decode(ids[1:], skip_special_tokens=True).strip(), len(ids) - 1


@functools.lru_cache(maxsize=1)
def _read(folder: Path, family: str) -> tuple[Any, Any]:
    """One folder's, for all its texts. What is written into it later is not seen."""
    cls = getattr(transformers, f"{family}ForConditionalGeneration")
    return cls.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)
