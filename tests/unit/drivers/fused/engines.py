"""The kernels over a whole model, without a driver."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import torch

from llmos.drivers.native.fused import binding as b
from llmos.drivers.native.fused import build
from llmos.drivers.native.fused.engine import Engine, Piece
from llmos.drivers.native.fused.tensors import MappedTensors
from llmos.drivers.native.fused.weights import Weights
from tests.unit.drivers.fused.compare import described

MOST_ROWS = 64


def open_engine(
    architecture: str,
    folder: Path,
    dtype: str = "float32",
    *,
    library: b.Library | None = None,
    length: int = 128,
    num_threads: int = 1,
) -> Engine:
    """Of a folder that `models.make` wrote; pages are numbered from the last one down."""
    decoder = described(architecture, folder)
    return Engine(
        library or b.Library(build.library()),
        decoder,
        Weights(decoder, MappedTensors(folder, quantized=False), dtype, length),
        kv_dtype=dtype if dtype in {"float32", "float16"} else "bfloat16",
        num_pages=-(-length // b.PAGE_TOKENS),
        max_rows=MOST_ROWS,
        max_wanted=MOST_ROWS,
        num_threads=num_threads,
    )


def logits(engine: Engine, tokens: Sequence[int], cuts: Sequence[int] = ()) -> torch.Tensor:
    """Of every token, TV, read in pieces that end at `cuts` (and where a step is full)."""
    table = array("i", range(engine.num_pages - 1, -1, -1))
    ends = sorted({*cuts, *range(MOST_ROWS, len(tokens), MOST_ROWS), len(tokens)})
    found, begin = [], 0
    for end in ends:
        piece = Piece(table, begin, tokens[begin:end], end - begin)
        found.append(engine.forward([piece]).clone())
        begin = end
    return torch.cat(found)
