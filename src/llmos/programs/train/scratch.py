"""Models from scratch: what a recipe's sizes are, in the words of each family's configuration."""

from __future__ import annotations

from typing import Any

from llmos.programs.train.recipe import Architecture


def make_config(family: str, wanted: Architecture, tokenizer: Any, **fields: Any) -> Any:
    """A configuration of Transformers."""
    makers = {"bert": _bert, "modernbert": _modernbert, "gpt2": _gpt2, "llama": _llama, "t5": _t5}
    makers |= {"vit": _vit, "wav2vec2": _wav2vec2}
    return makers[family](wanted, tokenizer, fields)


def inner(wanted: Architecture) -> int:
    """The width within a layer."""
    return wanted.intermediate_size or 4 * wanted.hidden_size


def _bert(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=wanted.hidden_size,
        num_hidden_layers=wanted.num_layers,
        num_attention_heads=wanted.num_heads,
        intermediate_size=inner(wanted),
        max_position_embeddings=wanted.max_length,
        hidden_dropout_prob=wanted.dropout,
        attention_probs_dropout_prob=wanted.dropout,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _modernbert(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    """Every layer sees all of a text that is no longer than a window."""
    from transformers import ModernBertConfig

    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=wanted.hidden_size,
        num_hidden_layers=wanted.num_layers,
        num_attention_heads=wanted.num_heads,
        intermediate_size=inner(wanted),
        max_position_embeddings=wanted.max_length,
        embedding_dropout=wanted.dropout,
        attention_dropout=wanted.dropout,
        mlp_dropout=wanted.dropout,
        classifier_dropout=wanted.dropout,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        cls_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        **fields,
    )
    if wanted.max_length <= config.local_attention:
        config.layer_types = ["full_attention"] * wanted.num_layers
    return config


def _gpt2(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=wanted.hidden_size,
        n_layer=wanted.num_layers,
        n_head=wanted.num_heads,
        n_inner=inner(wanted),
        n_positions=wanted.max_length,
        resid_pdrop=wanted.dropout,
        embd_pdrop=wanted.dropout,
        attn_pdrop=wanted.dropout,
        activation_function="gelu_pytorch_tanh",  # as gelu_new, in one operation
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _llama(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=wanted.hidden_size,
        num_hidden_layers=wanted.num_layers,
        num_attention_heads=wanted.num_heads,
        num_key_value_heads=wanted.num_heads,
        intermediate_size=inner(wanted),
        max_position_embeddings=wanted.max_length,
        attention_dropout=wanted.dropout,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _t5(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    from transformers import T5Config

    make: Any = T5Config
    return make(
        vocab_size=len(tokenizer),
        d_model=wanted.hidden_size,
        d_kv=wanted.hidden_size // wanted.num_heads,
        d_ff=inner(wanted),
        num_layers=wanted.num_layers,
        num_heads=wanted.num_heads,
        dropout_rate=wanted.dropout,
        n_positions=wanted.max_length,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **fields,
    )


def _vit(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    from transformers import ViTConfig

    make: Any = ViTConfig
    return make(
        hidden_size=wanted.hidden_size,
        num_hidden_layers=wanted.num_layers,
        num_attention_heads=wanted.num_heads,
        intermediate_size=inner(wanted),
        image_size=wanted.image_size,
        patch_size=wanted.patch_size,
        hidden_dropout_prob=wanted.dropout,
        attention_probs_dropout_prob=wanted.dropout,
        **fields,
    )


def _wav2vec2(wanted: Architecture, tokenizer: Any, fields: dict[str, Any]) -> Any:
    """Its ears, seven convolutions, are as wide as the model."""
    from transformers import Wav2Vec2Config

    make: Any = Wav2Vec2Config
    return make(
        hidden_size=wanted.hidden_size,
        num_hidden_layers=wanted.num_layers,
        num_attention_heads=wanted.num_heads,
        intermediate_size=inner(wanted),
        conv_dim=[wanted.hidden_size] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=min(wanted.num_heads, 16),
        classifier_proj_size=wanted.hidden_size,
        mask_time_prob=0.0,
        layerdrop=0.0,
        hidden_dropout=wanted.dropout,
        attention_dropout=wanted.dropout,
        **fields,
    )
