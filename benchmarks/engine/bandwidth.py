"""What the memory gives, and the bound it puts on one stream.

`python -m benchmarks.engine.bandwidth THREADS` prints bytes per second: the best of several reads
of a 1 GiB array, far larger than the caches, by that many threads, as a sum in fp32 and as a
product with a vector in fp32, whichever is quicker. A model that partly stays in the cache (60 M
in 32 MB) may pass the bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

SIZE_BYTES = 1 << 30
NUM_READS = 7
TIMEOUT_S = 120.0
WAY = "best of 7 reads of 1 GiB in fp32, by torch.sum or torch.mv"
BITS = {"bf16": 16, "int8": 8, "int4": 4}


def measure(num_threads: int) -> float:
    """Bytes per second, read in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.engine.bandwidth", str(num_threads)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)
    return float(done.stdout)


def read_best(num_threads: int) -> float:
    """In this process."""
    import torch

    torch.set_num_threads(num_threads)
    array = torch.ones(SIZE_BYTES // 4).view(-1, 8192)
    vector = torch.ones(8192)
    took_s = []
    for _ in range(NUM_READS):
        for read in (array.sum, lambda: torch.mv(array, vector)):
            began = time.perf_counter()
            read()
            took_s.append(time.perf_counter() - began)
    return SIZE_BYTES / min(took_s)


def weights_per_token(folder: Path) -> int:
    """Elements of the matrices that a token's forward reads in whole.

    A lookup reads one row of the embedding; where it is the head too, all of it.
    """
    config = json.loads((folder / "config.json").read_text())
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            is_lookup = "embed_tokens" in name and not config["tie_word_embeddings"]
            if name != "__metadata__" and len(entry["shape"]) == 2 and not is_lookup:
                count += entry["shape"][0] * entry["shape"][1]
    return count


def bound(num_weights: int, precision: str, bytes_per_s: float) -> float:
    """Tokens per second of one stream if nothing but the weights were read; scales left out."""
    return bytes_per_s / (num_weights * BITS[precision] / 8)


if __name__ == "__main__":
    print(read_best(int(sys.argv[1])))
