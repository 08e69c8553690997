"""The encoder driver's model, computed by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from llmos.abi.driver import ReplicaSpec
from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.driver import Opened
from llmos.drivers.encoder.finish import Finisher
from llmos.drivers.encoder.load import load_model
from llmos.drivers.encoder.memory import Accounts
from llmos.drivers.encoder.words import Words
from llmos.drivers.native.machine import num_cores


def open_torch(spec: ReplicaSpec, progress: Callable[[float, str], None]) -> Opened:
    """Raises ModelRejected, LoadFailed."""
    torch.set_num_threads(spec.num_threads or max(1, num_cores() - 1))
    progress(0.0, "weights")
    loaded = load_model(spec)
    progress(0.9, "tokenizer")
    has_words = (loaded.folder / "tokenizer.json").is_file()
    words = Words(loaded.folder) if has_words else None
    return Opened(
        Computer(loaded),
        Finisher(loaded, words).finish,
        Accounts(loaded).report,
        loaded.purpose.kinds,
        str(loaded.dtype).removeprefix("torch."),
        str(loaded.device),
    )
