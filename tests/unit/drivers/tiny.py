"""Tiny models and tokenizers made from nothing, and the loop that drives a driver."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from llmos.abi.driver import Driver, ReplicaSpec
from llmos.abi.events import Event, Finished, Tokens
from llmos.abi.inference import Sampling, WorkItem

VOCAB_SIZE = 300
SPECIALS = ["<unk>", "<s>", "</s>"]


def byte_level_tokenizer() -> Tokenizer:
    """GPT-2's kind: every byte a token, a few merges, a special and an added token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: i for i, char in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("ä", "½"), ("ä½", "ł"), ("ð", "Ł")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool call>"])
    return tokenizer


def byte_fallback_tokenizer() -> Tokenizer:
    """Llama 2's kind: pieces with ▁, bytes for the rest, the first space dropped, `<s>` added."""
    tokens = [*SPECIALS, *[f"<0x{i:02X}>" for i in range(256)], *"▁abcdehot.", "▁t", "▁th", "▁the"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def metaspace_tokenizer() -> Tokenizer:
    """A decoder without a byte rule: pieces with ▁, a space put first and dropped again."""
    tokens = ["<unk>", "▁", *"abcdehot.你好，世界🎉", "▁t", "▁th", "▁the"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def make_model(folder: Path, model_type: str = "llama", *, dtype: str = "", **config: Any) -> Any:
    """Write a random model of a type to a folder; the model itself, with eager attention."""
    import torch
    import transformers

    fields = config if model_type in {"gpt2", "gpt_bigcode", "opt"} else BASE | config
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(model_type, **fields), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far enough from zero for attention to matter
                parameter.mul_(8)
    if dtype:
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder)
    byte_fallback_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def make_spec(folder: Path, **fields: Any) -> ReplicaSpec:
    """A replica of four slots on one thread."""
    given = {
        "model_id": "mdl_tiny",
        "folder": str(folder),
        "scratch": str(folder),
        "weights_digest": "sha256:0",
        "context_length": 128,
        "num_slots": 4,
        "num_threads": 1,
    }
    return ReplicaSpec(**(given | fields))


def make_item(request_id: str, tokens: Iterable[int], **sampling: Any) -> WorkItem:
    """Greedy unless said otherwise."""
    item = {
        name: sampling.pop(name)
        for name in (
            "deterministic",
            "options",
            "kind",
            "adapter",
            "grammar",
            "service_class",
            "shown",
        )
        if name in sampling
    }
    return WorkItem(
        request_id=request_id,
        tokens=array("i", tokens).tobytes(),
        sampling=Sampling(**({"temperature": 0.0} | sampling)),
        **item,
    )


def random_prompt(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(3, VOCAB_SIZE), k=length)


def drive(
    driver: Driver, items: Iterable[WorkItem] = (), each: Callable[[int], None] = lambda n: None
) -> dict[str, list[Event]]:
    """Submit, and step until nothing is left to do. Events by request; `each(n)` after step n."""
    for item in items:
        driver.submit(item)
    events: dict[str, list[Event]] = {}
    for number in range(5000):
        if driver.wait_s() is None:
            return events
        for event in driver.step():
            events.setdefault(event.request_id, []).append(event)
        each(number)
    raise AssertionError("it never ends")


def token_ids(events: list[Event]) -> list[int]:
    return [i for event in events if isinstance(event, Tokens) for i in event.token_ids]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens))


def finished(events: list[Event]) -> Finished:
    """The one terminal event, which is the last."""
    terminal = [event for event in events if not isinstance(event, Tokens)]
    assert len(terminal) == 1
    assert terminal[0] is events[-1]
    assert isinstance(terminal[0], Finished)
    return terminal[0]
