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

MAX_GGUF_HEADER_BYTES = 256 << 20
"""Largest GGUF header: it holds the vocabulary, 256 thousand tokens and merges need about 20 MB."""

MAX_GGUF_KEYS = 65_536
"""Most key-value pairs of a GGUF file."""

MAX_GGUF_TENSORS = 65_536
"""Most tensors of a GGUF file."""

MAX_GGUF_ARRAY = 1 << 24
"""Longest array in a GGUF header: as many as a vocabulary may have tokens."""

MAX_GGUF_STRING_BYTES = 1 << 20
"""Longest text in a GGUF header: chat templates are some tens of thousands."""

MAX_IR_BYTES = 256 << 20
"""Largest `openvino_model.xml`: 0.4 B parameters in 24 layers need about 3 MB."""

MAX_IR_LAYERS = 1 << 20
"""Most operations of an OpenVINO model."""
