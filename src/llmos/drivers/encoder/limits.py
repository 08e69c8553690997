"""What bounds the encoder driver and its preparer."""

from __future__ import annotations

import msgspec


class EncoderLimits(msgspec.Struct, frozen=True):
    """Of a batch: `batch_rows` at most, and `batch_tokens` with padding; a row is not padded to
    more than `most_padding` times its length where it is longer than `free_tokens`.

    `head_bytes`: of logits that a batch may make. `look_rows`: among so many rows that wait, those
    of like length are looked for. Of a request: `num_windows` of one text, `num_labels` of one
    zero-shot item, `text_chars` of one text, `image_bytes` and `image_pixels` of one image,
    `sound_s` seconds of one recording. `new_tokens` of one text that is made, at most; `groups`
    of texts are made in turns, none of which is read as twice as long as it is where that is more
    than `near_tokens`; `num_beams` of one text at most. `speech_chars` of one
    text that is spoken.

    Of all items of a request together, since one process prepares for everybody: `request_chars`
    of text, `request_pixels`, `num_rows`, and what is made of them, `payload_bytes` in a message
    and `spill_bytes` beside it.
    """

    batch_rows: int = 64
    batch_tokens: int = 4096
    most_padding: float = 1.25
    free_tokens: int = 16
    head_bytes: int = 128 << 20
    look_rows: int = 4096
    num_windows: int = 1024
    num_labels: int = 256
    num_rows: int = 1 << 16
    text_chars: int = 1 << 20
    request_chars: int = 4 << 20
    request_pixels: int = 512_000_000
    payload_bytes: int = 32 << 20
    spill_bytes: int = 512 << 20
    image_bytes: int = 32 << 20
    image_pixels: int = 64_000_000
    sound_bytes: int = 256 << 20
    sound_s: float = 1800.0
    new_tokens: int = 1024
    groups: int = 4
    near_tokens: int = 64
    num_beams: int = 16
    speech_chars: int = 4096


LIMITS = EncoderLimits()
