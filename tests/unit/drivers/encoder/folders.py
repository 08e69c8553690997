"""Tiny folders of every kind, with random weights, and requests against a driver of one."""

# ruff: noqa: SIM905 (a list of words reads better as text)
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from llmos.abi.blob import BlobRef
from llmos.abi.events import Finished, ItemOutput, Outputs
from llmos.abi.inference import ItemsPrompt, Prepared, PrepareItem, Sampling, WorkItem
from llmos.drivers.encoder.prepare import EncoderPreparer
from tests.unit.drivers.tiny import drive, make_spec

if TYPE_CHECKING:
    from llmos.drivers.encoder.driver import EncoderDriver

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the cat sat on a mat it is good bad paris lives in new york who where and or".split()
PIECES = [*SPECIALS, *WORDS, *"abcdefghijklmnopqrstuvwxyz.,?!", *[f"##{c}" for c in "abcdefghij"]]
PIECES += [f"##{c}" for c in "klmnopqrstuvwxyz"]

SIZES: dict[str, Any] = {
    "vocab_size": len(PIECES),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def bert_tokenizer(folder: Path, most: int = 0) -> None:
    """WordPiece with BERT's own frame for texts and pairs."""
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIALS},
    }
    if most:
        settings["model_max_length"] = most
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make_folder(
    folder: Path,
    architecture: str = "BertModel",
    *,
    base: dict[str, Any] = SIZES,
    scale: float = 6,
    **config: Any,
) -> Path:
    """A random model of an architecture, far enough from 0 to tell rows apart."""
    import torch
    import transformers

    cls = getattr(transformers, architecture)
    torch.manual_seed(3)
    model = cls(cls.config_class(**(base | config))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    model.save_pretrained(folder)
    bert_tokenizer(folder)
    return folder


WRITER: dict[str, Any] = {
    "vocab_size": len(PIECES),
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}


def make_writer(folder: Path, family: str = "T5", **config: Any) -> Path:
    """A random model with a decoder, by a family's name."""
    return make_folder(folder, f"{family}ForConditionalGeneration", base=WRITER, **config)


def prepared(
    folder: Path,
    kind: str,
    items: list[Any],
    params: dict[str, Any] | None = None,
    *,
    blobs: list[BlobRef] | None = None,
    context_length: int = 4096,
    spill: str = "",
) -> Prepared:
    """As the tokenizer worker does."""
    prompt = ItemsPrompt(kind, items, params or {}, blobs or [])
    asked = PrepareItem(
        "req_x", "", str(folder), prompt, len(PIECES), None, kind, context_length, spill
    )
    return EncoderPreparer(folder).prepare(asked)


def work_item(request_id: str, kind: str, made: Prepared, **fields: Any) -> WorkItem:
    return WorkItem(
        request_id, b"", Sampling(), kind=kind, payload=made.payload, spill=made.spill, **fields
    )


def load(folder: Path, **spec: Any) -> EncoderDriver:
    from llmos.drivers.encoder.driver import EncoderDriver

    driver = EncoderDriver()
    driver.load(make_spec(folder, **spec), lambda *_: None)
    return driver


def outputs(events: list[Any]) -> list[ItemOutput]:
    """Of one request that finished, by index."""
    assert isinstance(events[-1], Finished), events
    found = [item for event in events[:-1] for item in event.items]
    assert all(isinstance(event, Outputs) for event in events[:-1])
    return sorted(found, key=lambda item: item.index)


def infer(
    folder: Path, kind: str, items: list[Any], driver: EncoderDriver | None = None, **how: Any
) -> list[ItemOutput]:
    """Prepare and compute one request alone."""
    own = driver or load(folder)
    made = prepared(folder, kind, items, how.pop("params", None), **how)
    events = drive(own, [work_item("req_1", kind, made)])
    if driver is None:
        own.unload()
    return outputs(events["req_1"])
