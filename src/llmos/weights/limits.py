"""Bounds on what a model folder may hold. A light package: constants, no settings."""

from __future__ import annotations

MAX_HEADER_BYTES = 25_000_000
"""Largest safetensors header: the hub's own bound, 70 B models need about 0.2 MB."""

MAX_CONFIG_BYTES = 4 << 20
"""Largest of the small JSON files (`config.json`, `tokenizer_config.json`)."""

MAX_INDEX_BYTES = 64 << 20
"""Largest sharded index."""

MAX_TOKENIZER_BYTES = 128 << 20
"""Largest `tokenizer.json`; vocabularies of 256 thousand tokens need about 35 MB."""

MAX_CARD_BYTES = 1 << 20
"""Of a model card no more than this is read, looking for its front matter."""

MAX_FILES = 4096
"""Most entries in a model folder."""

MAX_DIMENSIONS = 16
"""Most dimensions of one tensor."""

MAX_NAME_LENGTH = 1024
"""Longest tensor name in characters."""
