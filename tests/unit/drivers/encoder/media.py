"""Folders of models of images and sound, and files for them."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from llmos.abi.blob import BlobRef


def blob(folder: Path, name: str, data: bytes) -> BlobRef:
    path = folder / name
    path.write_bytes(data)
    return BlobRef(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), str(path))


def png(width: int, height: int, seed: int = 0, mode: str = "RGB") -> bytes:
    """Smooth colours with noise on them."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    noise = rng.random((height, width)) * 255
    planes = [x[None, :] + 0 * y[:, None], 0 * x[None, :] + y[:, None], noise]
    pixels = np.stack(planes, axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


def see_through(mode: str) -> bytes:
    """An image of which more and more shows from left to right; of a palette, all but one colour.
    There are other colours under what does not show."""
    from PIL import Image

    image = Image.open(io.BytesIO(png(60, 40, seed=4)))
    out = io.BytesIO()
    if mode == "P":
        image.convert("P").save(out, "PNG", transparency=image.convert("P").getpixel((30, 20)))
    else:
        image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 60, dtype=np.uint8), (40, 1))))
        image.convert(mode).save(out, "PNG")
    return out.getvalue()


def wav(samples: Any, rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1) -> bytes:
    """Samples from -1 to 1, as any format that is read."""
    if tag == 3:
        body = samples.astype("<f4" if bits == 32 else "<f8").tobytes()
    elif bits == 8:
        body = (np.round(samples * 127) + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples * ((1 << (bits - 1)) - 1)).astype("<i4")
        raw = whole.astype("<i4").tobytes()
        body = b"".join(raw[i : i + bits // 8] for i in range(0, len(raw), 4))
    step = channels * bits // 8
    head = struct.pack("<HHIIHH", tag, channels, rate, rate * step, step, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(seconds: float, hertz: float = 440.0, rate: int = 16_000) -> Any:
    t = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * t) + 0.2 * np.sin(2 * np.pi * 3.1 * hertz * t)


def save_random(folder: Path, model: Any, scale: float, seed: int = 5) -> None:
    """Its weights drawn again, larger."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    model.eval().save_pretrained(folder)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def make_listener(folder: Path) -> Path:
    """Of letters, by CTC."""
    import transformers

    config = transformers.Wav2Vec2Config(
        vocab_size=5,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
    )
    save_random(folder, transformers.Wav2Vec2ForCTC(config), 0.3)
    write_json(folder / "preprocessor_config.json", {"do_normalize": True})
    vocab = {unit: i for i, unit in enumerate(["<pad>", "|", "a", "b", "c"])}
    write_json(folder / "vocab.json", vocab)
    return folder
