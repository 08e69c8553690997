"""Products of matrices in the order in which oneDNN's kernels read them, laid out once at loading.

Torch hands float32 to MKL, which reads a matrix's rows anew for every product, and leaves half of
the vector units idle on processors that are not Intel's. Rounding differs in the last bits.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections import Counter
from typing import Any

import torch
from torch import nn

from llmos.drivers.encoder.kinds import Head

_UNPACKED = frozenset({Head.CTC, Head.VOICE})
"""Heads of families that read the weights of their products elsewhere than in these."""


class PackedLinear(nn.Module):
    """As the `nn.Linear` that it is made of. `weight` is not to be read but for its type."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), 64)
        self.bias = plain.bias

    def forward(self, given: torch.Tensor) -> Any:
        return torch.ops.mkldnn._linear_pointwise(given, self.weight, self.bias, "none", [], "")


def pack(model: nn.Module, head: Head) -> None:
    """Replace what can be, where this torch and this machine have it."""
    parameter = next(model.parameters())
    is_plain = parameter.dtype is torch.float32 and parameter.device.type == "cpu"
    if not is_plain or head in _UNPACKED or not _can_pack():
        return
    owners = Counter(one.data_ptr() for _, one in model.named_parameters(remove_duplicate=False))
    with torch.inference_mode():
        for parent in [*model.modules()]:
            for name, child in [*parent.named_children()]:
                if type(child) is nn.Linear:
                    setattr(parent, name, PackedLinear(child))
                    if owners[child.weight.data_ptr()] == 1:
                        _let_go(child.weight)


def _let_go(weight: torch.Tensor) -> None:
    """Its pages, now that nobody reads them: they are of a file that is mapped as a whole, and
    would count as held for as long as any other tensor of it is."""
    if sys.platform != "linux" or not weight.is_contiguous():
        return
    begin = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _can_pack() -> bool:
    """Tried, and compared: these are torch's own for what it compiles, and promised to nobody."""
    plain, given = nn.Linear(16, 32), torch.ones(3, 16)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(plain)(given), plain(given), atol=1e-5)
    except (AttributeError, RuntimeError):
        return False
