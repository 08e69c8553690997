"""Tiny folders of models that speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.drivers.encoder.media import write_json

LETTERS = ["|", *" abcdefghijklmnopqrstuvwxyz'-ţ", "<unk>"]

SIZES: dict[str, Any] = {
    "vocab_size": len(LETTERS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 24,
    "flow_size": 16,
    "spectrogram_bins": 9,
    "upsample_initial_channel": 16,
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "prior_encoder_num_flows": 2,
    "prior_encoder_num_wavenet_layers": 2,
    "posterior_encoder_num_wavenet_layers": 2,
    "duration_predictor_num_flows": 2,
    "duration_predictor_filter_channels": 16,
    "wavenet_kernel_size": 3,
    "depth_separable_num_layers": 2,
}


def make_voice(
    folder: Path,
    *,
    is_saved: bool = True,
    num_speakers: int = 1,
    sizes: Any = SIZES,
    **settings: Any,
) -> Path:
    """VITS with random weights; without `is_saved` its letters only."""
    folder.mkdir()
    write_json(folder / "vocab.json", {letter: i for i, letter in enumerate(LETTERS)})
    tokenizer = {
        "tokenizer_class": "VitsTokenizer",
        "phonemize": False,
        "normalize": True,
        "add_blank": True,
        "is_uroman": False,
        "language": "eng",
        "pad_token": "|",
        "unk_token": "<unk>",
    }
    write_json(folder / "tokenizer_config.json", tokenizer | settings)
    if is_saved:
        import torch
        import transformers

        torch.manual_seed(11)
        speakers = {
            "num_speakers": num_speakers,
            "speaker_embedding_size": 8 if num_speakers > 1 else 0,
        }
        model = transformers.VitsModel(transformers.VitsConfig(**sizes, **speakers))
        model.eval().save_pretrained(folder)
    return folder
