"""What goes wrong on the fused engine: numbers, files, compilers, crowds."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

from llmos.abi.events import Failed
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused import build
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.errors import LoadFailed, ModelRejected
from llmos.weights.conversion import quantize_folder
from llmos.weights.safetensors import read_header
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_spec,
    random_prompt,
    token_ids,
)

BAD = 7
"""A token whose embedding is broken."""


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def opened(folder: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    driver.load(make_spec(folder, **fields), lambda fraction, what: None)
    return driver


def fused(driver: NativeDriver) -> FusedRunner:
    runner = driver._model()
    assert isinstance(runner, FusedRunner)
    return runner


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number(copy: Path, value: float, dtype: str) -> None:
    """Who meets it fails, the others go on, and nothing of it stays cached."""
    path = copy / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][BAD, 3] = value
    save_file(weights, path, {"format": "pt"})
    driver = opened(copy, dtype=dtype, options={"engine": "fused"})
    good = [t for t in random_prompt(1, 60) if t != BAD]
    asked: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}
    items = [make_item("good", good, **asked), make_item("bad", [*good[:20], BAD, *good], **asked)]
    expected = token_ids(drive(driver, [items[0]])["good"])
    assert BAD not in expected
    for _ in range(2):
        events = drive(driver, [*items, make_item("short", [BAD], **asked)])
        for name in ("bad", "short"):
            (failed,) = events[name]
            assert isinstance(failed, Failed)
            assert failed.error.code == "engine_failed"
        assert token_ids(events["good"]) == expected
    pages = fused(driver)._pages
    assert pages.num_leases == pages.num_used == 0
    # its first page is the other one's as well
    assert len(pages._tree.find("", [*good[:20], BAD, *good], 99)) <= 1
    # one that left before its end had nothing drawn yet, and is met once
    driver.submit(make_item("left", [BAD, *good], **asked))
    driver.abort("left", "test")
    (failed, *_) = drive(driver, [make_item("next", [BAD, *good], **asked)])["next"]
    assert isinstance(failed, Failed)
    assert pages._tree.find("", [BAD, *good], 99) == []
    driver.unload()


def test_a_page_that_went_bad_heals(tiny: Path) -> None:
    driver = opened(tiny, options={"engine": "fused"})
    item = make_item("a", random_prompt(1, 60), max_tokens=5, ignore_eos=True)
    expected = token_ids(drive(driver, [item])["a"])
    engine = fused(driver).engine
    for layer in engine._arena.tensors:
        layer.view(torch.float32).fill_(float("nan"))
    assert isinstance(drive(driver, [item])["a"][-1], Failed)
    # pages that are taken anew hold NaN still, beyond what is written to them
    healed = drive(driver, [item])["a"]
    assert token_ids(healed) == expected
    assert finished(healed).usage.cached_tokens == 0
    assert finished(drive(driver, [item])["a"]).usage.cached_tokens == 48
    driver.unload()


def corrupt_scale(tensors: dict[str, Any]) -> None:
    name = next(n for n in sorted(tensors) if n.endswith("up_proj.weight.scale"))
    tensors[name][(0,) * tensors[name].ndim] = np.nan


def corrupt_type(tensors: dict[str, Any]) -> None:
    name = next(n for n in sorted(tensors) if n.endswith("up_proj.weight.q"))
    tensors[name] = tensors[name].astype(np.int16)


def corrupt_half(tensors: dict[str, Any]) -> None:
    del tensors[next(n for n in sorted(tensors) if n.endswith("up_proj.weight.scale"))]


@pytest.mark.parametrize("harm", [corrupt_scale, corrupt_type, corrupt_half])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_corrupt_quantized_file(tiny: Path, tmp_path: Path, bits: int, harm: Any) -> None:
    folder = tmp_path / "quantized"
    quantize_folder(tiny, folder, bits, lambda *_: None)
    stored = opened(folder)
    made = opened(tiny, dtype=f"int{bits}")
    item = make_item("a", random_prompt(1, 60), max_tokens=20, ignore_eos=True)
    assert token_ids(drive(stored, [item])["a"]) == token_ids(drive(made, [item])["a"])
    stored.unload()
    made.unload()
    (path,) = folder.glob("*.safetensors")
    metadata = read_header(path).metadata
    tensors = load_numpy(path)
    harm(tensors)
    save_numpy(tensors, path, metadata)
    with pytest.raises(ModelRejected, match=r"corrupt quantized file: tensor .*up_proj"):
        opened(folder)


# compilers


def compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only program there is: `c++`, a script."""
    folder.mkdir()
    path = folder / "c++"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


FAILING = """
import sys
if sys.argv[1:] == ["--version"]: sys.exit(0)
sys.stderr.write("In file included\\nsimd.h:3:1: error: no such vector\\n")
sys.exit(1)
"""
WRITING = """
import shutil, sys
if sys.argv[1:] == ["--version"]: sys.exit(0)
shutil.copy({library!r}, sys.argv[sys.argv.index("-o") + 1])
"""


def check_fallback(folder: Path, reason: str, **fields: Any) -> None:
    """On torch, which says why; who insists on our kernels is refused."""
    driver = opened(folder, **fields)
    info = driver._model().info
    assert info.engine == "torch"
    assert reason in info.why
    item = make_item("a", [5], max_tokens=3, ignore_eos=True)
    assert len(token_ids(drive(driver, [item])["a"])) == 3
    driver.unload()
    with pytest.raises(LoadFailed, match=re.escape(reason)):
        opened(folder, options={"engine": "fused"}, **fields)


def test_no_compiler(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "__file__", str(tmp_path / "new" / "build.py"))
    check_fallback(tiny, "no C++ compiler", scratch=str(tmp_path))


def test_a_compiler_that_fails(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path / "bin", FAILING, monkeypatch)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "new" / "build.py"))
    reason = "simd.h:3:1: error: no such vector"
    check_fallback(tiny, reason, scratch=str(tmp_path / "scratch"))
    assert list((tmp_path / "new" / "__pycache__").iterdir()) == []


def test_a_compiler_that_writes_no_library(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path / "bin", WRITING.format(library=__file__), monkeypatch)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "new" / "build.py"))
    check_fallback(tiny, "invalid ELF header", scratch=str(tmp_path / "scratch"))


def test_a_folder_that_cannot_be_written(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build.library()
    compiler(tmp_path / "bin", WRITING.format(library=str(library)), monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "file" / "build.py"))
    scratch = tmp_path / "scratch"
    driver = opened(tiny, scratch=str(scratch))
    assert fused(driver).info.engine == "fused"
    (made,) = scratch.glob("*.so")
    before = made.stat().st_mtime_ns
    driver.unload()
    opened(tiny, scratch=str(scratch)).unload()  # and is not compiled again
    assert made.stat().st_mtime_ns == before
    check_fallback(tiny, "cannot be written", scratch=str(tmp_path / "file" / "x"))
    check_fallback(tiny, "cannot be written", scratch="")


# pools


@pytest.mark.parametrize("context_length", [1, 15, 16, 17, 40])
def test_a_context_of_less_than_a_few_pages(tiny: Path, context_length: int) -> None:
    driver = opened(tiny, context_length=context_length, num_slots=1, options={"engine": "fused"})
    assert fused(driver).info.context_length == context_length
    if context_length > 1:
        item = make_item("a", [5] * (context_length - 1), ignore_eos=True)
        assert len(token_ids(drive(driver, [item])["a"])) == 1
    driver.unload()


def test_five_hundred_requests(tiny: Path) -> None:
    """Far more than there are slots and pages: all end, in their order, and none is lost."""
    driver = opened(tiny, num_slots=4, context_length=64, options={"engine": "fused"})
    rng = random.Random(1)
    prompts = [random_prompt(rng.choice([0, 0, *range(20)]), 40) for _ in range(500)]
    items = [
        make_item(f"r{n}", prompt, max_tokens=3, ignore_eos=True)
        for n, prompt in enumerate(prompts)
    ]
    items = [
        msgspec.structs.replace(item, cache_salt=f"ten_{n % 3}") for n, item in enumerate(items)
    ]
    events = drive(driver, items)
    assert list(events) == [item.request_id for item in items]
    answers = {n: token_ids(events[f"r{n}"]) for n in range(500)}
    assert all(len(answer) == 3 for answer in answers.values())
    by_prompt: dict[str, list[int]] = {}
    for n, prompt in enumerate(prompts):  # whoever asked the same, of whatever salt
        assert by_prompt.setdefault(json.dumps(prompt), answers[n]) == answers[n]
    assert len(by_prompt) < 500
    pages = fused(driver)._pages
    assert pages.num_evicted > 0 and pages.num_hits > 0
    assert (pages.num_leases, pages.num_used, pages.num_promised) == (0, 0, 0)
    driver.unload()
