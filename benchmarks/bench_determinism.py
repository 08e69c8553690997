"""What exactness costs, and what decoding costs beside Transformers' `generate`.

Decode steps only (prompts are read before the clock starts), 1, 8 and 16 streams of greedy tokens,
16 slots, runs of the modes side by side. On a CPU with one thread the clock is the process's CPU
time, so that other work on the machine changes little. `--write` commits the default of each
device and dtype to `llmos/drivers/native/determinism.toml`: on where the rows of a fixed step are
alike and a full batch of the larger model, whose time is arithmetic, loses at most a third.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.harness import ROOT, Result, commit, machine, paired
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Tokens
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.native.batch import DecodeMode
from llmos.drivers.native.determinism import TABLE
from llmos.drivers.native.driver import NativeDriver

NUM_SLOTS = 16
STREAMS = (1, 8, NUM_SLOTS)
MAX_LOSS = 1 / 3


def random_model(folder: Path) -> Path:
    """A Llama of 51 million random parameters."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8192,
        hidden_size=640,
        intermediate_size=1728,
        num_hidden_layers=10,
        num_attention_heads=10,
        num_key_value_heads=5,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def models(scratch: Path) -> Iterator[tuple[str, Path, int]]:
    """Name, folder and tokens per stream of each model."""
    data = Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")
    stories = data / "models" / "stories260k"
    if stories.is_dir():
        yield "stories260k", stories, 80
    yield "llama 51M random", random_model(scratch), 16


def load(folder: Path, dtype: str, device: str, num_threads: int) -> NativeDriver:
    """A driver of NUM_SLOTS slots."""
    driver = NativeDriver()
    spec = ReplicaSpec(
        "bench", str(folder), str(folder), "", 512, NUM_SLOTS, num_threads, dtype, device
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def decode_rate(
    driver: NativeDriver, num_streams: int, num_tokens: int, exact: bool, clock: Callable[[], float]
) -> float:
    """Tokens per second of all streams together, from the moment all of them decode."""
    prompt = array("i", [1, 5, 9, 300, 7, 8, 20, 30]).tobytes()
    for n in range(num_streams):
        sampling = Sampling(temperature=0.0, max_tokens=num_tokens + 64, ignore_eos=True)
        driver.submit(WorkItem(f"r{n}", prompt, sampling, deterministic=exact))
    while sum(isinstance(e, Tokens) for e in driver.step()) < num_streams:
        pass
    begin = clock()
    for _ in range(num_tokens):
        driver.step()
    took = clock() - begin
    for n in range(num_streams):
        driver.abort(f"r{n}", "measured")
    driver.step()
    return num_streams * num_tokens / took


def generate_rate(
    model: Any, num_streams: int, num_tokens: int, clock: Callable[[], float]
) -> float:
    """The same of `model.generate` on one batch; its one prefill of 8 tokens is in the time."""
    ids = torch.tensor([[1, 5, 9, 300, 7, 8, 20, 30]] * num_streams, device=model.device)
    begin = clock()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return num_streams * num_tokens / (clock() - begin)


def measure(
    result: Result, options: argparse.Namespace, dtype: str, scratch: Path
) -> dict[str, Any]:
    """All models in one dtype. The table's entry."""
    on_cpu = options.device == "cpu" and options.threads == 1
    clock = time.process_time if on_cpu else time.perf_counter
    costs: dict[int, float] = {}
    alike = True
    for name, folder, num_tokens in models(scratch):
        driver = load(folder, dtype, options.device, options.threads)
        alike = alike and driver._exact_mode is DecodeMode.FIXED
        reference = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).to(options.device)
        for n in STREAMS:
            exact, packed, peer = [], [], []
            for _ in range(options.runs):
                exact.append(decode_rate(driver, n, num_tokens, True, clock))
                packed.append(decode_rate(driver, n, num_tokens, False, clock))
                peer.append(generate_rate(reference, n, num_tokens, clock))
            what = f"{name} {dtype} {n} streams"
            result.add(paired(f"{what}, deterministic", "tokens/s", exact, "packed", packed))
            result.add(paired(f"{what}, packed", "tokens/s", packed, "generate", peer))
            costs[n] = statistics.median(p / e for p, e in zip(packed, exact, strict=True))
        driver.unload()
    # the last model is the larger one
    entry = {f"cost_{n}": round(costs[n], 2) for n in STREAMS}
    return {"default": alike and entry[f"cost_{NUM_SLOTS}"] <= 1 + MAX_LOSS, **entry}


def write_table(device: str, entries: dict[str, dict[str, Any]]) -> None:
    """Replace the device's part of the committed table."""
    lines = [
        "# Whether deterministic mode is the default, by device and dtype. `cost_N` is the time of",
        f"# a token at N streams relative to packed steps, {NUM_SLOTS} slots. Made by",
        '# `make bench-determinism ARGS="--write"` on',
        f"# {datetime.now(UTC).date()}, {machine()}, commit {commit()}.",
    ]
    for dtype, entry in entries.items():
        lines += ["", f"[{device}.{dtype}]"]
        lines += [f"{key} = {str(value).lower()}" for key, value in entry.items()]
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure, write the result, and with `--write` the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    result = Result("determinism", "make bench-determinism")
    with tempfile.TemporaryDirectory() as scratch:
        entries = {
            dtype: measure(result, options, dtype, Path(scratch)) for dtype in options.dtypes
        }
    if options.write:
        write_table(options.device, entries)
    result.write()


if __name__ == "__main__":
    main()
