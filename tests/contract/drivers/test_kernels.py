"""The kernels compiled for other processors than this one: right, and rows as independent.

Also where this machine cannot run them they must compile: what does not leaves its processors to
torch without a word.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from llmos.drivers.native.fused import binding, build
from tests.unit.drivers.fused.engines import logits, open_engine
from tests.unit.drivers.fused.kernel_checks import check_all
from tests.unit.drivers.fused.models import VOCAB_SIZE, make

TARGETS = {
    "x86_64": {
        "x86-64-v3": "avx2",
        "skylake-avx512": "avx512dq",
        "cascadelake": "avx512_vnni",
    },
    "aarch64": {"armv8-a": "", "armv8.2-a+fp16+dotprod": "asimddp"},
}
"""Per machine: what is compiled for, and the feature that running it takes."""

TOKENS = [(7 * i * i + 3 * i + 5) % VOCAB_SIZE for i in range(300)]


def compiled(target: str, folder: Path) -> binding.Library:
    """As `build` does, but for the target and with less optimization, which takes less time."""
    flags = [flag for flag in build.FLAGS if not flag.startswith("-O")]
    into = folder / "kernels.so"
    command = ["c++", "-O1", *flags, f"-march={target}", str(build.SOURCES / build.MAIN)]
    done = subprocess.run([*command, "-o", str(into)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return binding.Library(into)


@pytest.mark.parametrize("target", TARGETS[platform.machine()])
def test_another_processors_kernels(target: str, tmp_path: Path) -> None:
    library = compiled(target, tmp_path)
    feature = TARGETS[platform.machine()][target]
    if feature not in Path("/proc/cpuinfo").read_text():
        return  # compiling it is what could be tested here
    check_all(library)
    make("Gemma2ForCausalLM", tmp_path, sliding_window=40, max_position_embeddings=512)
    make("GPT2LMHeadModel", tmp_path / "gpt2", n_positions=512)
    for name, folder in (
        ("Gemma2ForCausalLM", tmp_path),
        ("GPT2LMHeadModel", tmp_path / "gpt2"),
    ):
        for dtype in ("float32", "bfloat16", "float16", "int8", "int4"):
            engine = open_engine(name, folder, dtype, library=library, length=304, num_threads=2)
            found = logits(engine, TOKENS)
            assert torch.equal(logits(engine, TOKENS, cuts=[1, 30, 31, 100, 257]), found)
            engine.close()
            native = open_engine(name, folder, dtype, length=304)
            expected = logits(native, TOKENS)
            native.close()
            error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
            assert error <= {"float32": 1e-5, "float16": 2e-3}.get(dtype, 0.03), (name, dtype)
