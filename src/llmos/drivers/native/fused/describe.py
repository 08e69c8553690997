"""A Transformers config and the stored tensors' names and shapes, made into a `Decoder`.

Nothing is guessed: what the description cannot say is refused with its reason, and the driver's
torch forward serves the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.drivers.native.fused.architectures import FAMILIES
from llmos.drivers.native.fused.layers import Layers
from llmos.drivers.native.fused.parts import Parts
from llmos.drivers.native.fused.rope import RopeTables, read_rope
from llmos.drivers.native.fused.spec import Decoder, Linear, Matrix, Unsupported

_FOREIGN = (
    ("is_heterogeneous", "its layers have configs of their own"),
    ("use_bidirectional_attention", "its tokens see later ones"),
    ("is_encoder_decoder", "it has an encoder"),
    ("add_cross_attention", "it has cross-attention"),
    ("quantization_config", "its weights are quantized"),
)
"""Switches of any config that change the forward."""

_LAYER_TYPES = {"full_attention", "sliding_attention"}


def describe(config: Any, tensors: Mapping[str, tuple[int, ...]]) -> Decoder:
    """`config` names its architecture. Raises Unsupported with the reason."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    family = FAMILIES.get(architecture)
    if family is None:
        raise Unsupported(f"{architecture or 'the model'} has no description")
    if not getattr(config, "is_causal", True):
        raise Unsupported("its tokens see later ones (is_causal is false)")
    for name, reason in _FOREIGN:
        if getattr(config, name, None):
            raise Unsupported(f"{reason} ({name})")
    strange = sorted(set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES)
    if strange:
        raise Unsupported(f"it has layers of type {', '.join(strange)}")
    refusal = family.refuse(config)
    if refusal is not None:
        raise Unsupported(refusal)
    return _decoder(Parts(config, family, tensors))


def _decoder(parts: Parts) -> Decoder:
    family, config = parts.family, parts.config
    ropes = _read_ropes(parts)
    layers = Layers(parts, ropes)
    embed, head, tied = _ends(parts)
    positions = _positions(parts)
    bounds = [ropes.max_length if ropes else None, family.max_length(config)]
    bounds.append(positions.shape[0] - family.position_offset if positions else None)
    return Decoder(
        architecture=config.architectures[0],
        vocab_size=int(config.vocab_size),
        hidden_size=parts.hidden_size,
        embed=embed,
        layers=tuple(layers.layer(i) for i in range(int(config.num_hidden_layers))),
        head=head,
        tied=tied,
        final_norm=parts.norm(f"{family.base}.{family.final_norm}", (parts.hidden_size,)),
        embed_scale=family.embed_scale(config),
        embed_norm=parts.norm("", (parts.hidden_size,)) if family.embed_norm else None,
        positions=positions,
        position_offset=family.position_offset,
        logit_scale=family.logit_scale(config),
        logit_softcap=parts.find_number(family.logit_softcap),
        max_length=min((b for b in bounds if b is not None), default=None),
    )


def _read_ropes(parts: Parts) -> RopeTables | None:
    family = parts.family
    if family.rope is None:
        return None
    return read_rope(
        parts.config,
        parts.head_dim,
        family.rope,
        partial=family.partial,
        backwards=family.backwards,
    )


def _ends(parts: Parts) -> tuple[Matrix, Linear, bool]:
    """Embedding, head, and whether they are one. Stored twice, each is what its file says."""
    family, stored, width = parts.family, parts.stored, parts.hidden_size
    vocab_size = int(parts.config.vocab_size)
    embed_name = f"{family.base}.{family.embed}.weight"
    heads = [f"{name}.weight" for name in family.heads]
    found = [name for name in heads if stored.has(name)]
    if len(found) > 1:
        raise Unsupported(f"two heads are stored: {' and '.join(found)}")
    head_name = found[0] if found else heads[0]
    if parts.is_on("tie_word_embeddings"):
        if not found:
            head_name = embed_name
        elif not stored.has(embed_name):
            embed_name = head_name
    embed = stored.matrix(embed_name, vocab_size, width)
    tied = head_name == embed_name
    matrix = embed if tied else stored.matrix(head_name, vocab_size, width)
    bias = stored.vector(f"{family.heads[0]}.bias", (vocab_size,)) if family.head_bias else None
    return embed, Linear(matrix, bias), tied


def _positions(parts: Parts) -> Matrix | None:
    family = parts.family
    if family.positions is None:
        return None
    num_rows = int(parts.config.max_position_embeddings) + family.position_offset
    name = f"{family.base}.{family.positions}.weight"
    return parts.stored.matrix(name, num_rows, parts.hidden_size)
