"""What OpenVINO and vLLM are told before they are there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llmos.drivers.openvino.driver import choose_precision
from llmos.drivers.vllm import opening
from llmos.drivers.vllm.opening import choose_dtype, choose_eager
from llmos.drivers.vllm.settings import variables
from llmos.errors import LoadFailed
from tests.unit.drivers.test_catalog import LLAMA
from tests.unit.drivers.tiny import make_spec

HALF = msgspec.structs.replace(LLAMA, dtype="float16")
INT8 = msgspec.structs.replace(HALF, quantization="openvino-int8")


def test_float32_is_computed_with_as_it_is() -> None:
    assert choose_precision("auto", LLAMA, has_bfloat16=True) == "f32"
    assert choose_precision("float32", HALF, has_bfloat16=True) == "f32"
    assert choose_precision("bfloat16", LLAMA, has_bfloat16=True) == "bf16"


@pytest.mark.parametrize(("facts", "stored"), [(HALF, "float16"), (INT8, "int8")])
def test_others_in_what_the_processor_is_good_at(facts: opening.ModelFacts, stored: str) -> None:
    for asked in ("auto", stored):
        assert choose_precision(asked, facts, has_bfloat16=True) == "bf16"
        assert choose_precision(asked, facts, has_bfloat16=False) == "f32"
    with pytest.raises(LoadFailed, match="'int4'"):
        choose_precision("int4", facts, has_bfloat16=True)


def test_vllm_loads_what_the_files_hold() -> None:
    assert choose_dtype("auto", HALF) == "float16"
    assert choose_dtype("auto", msgspec.structs.replace(LLAMA, dtype="float64")) == "bfloat16"
    assert choose_dtype("float32", HALF) == "float32"
    with pytest.raises(LoadFailed, match="'int8'"):
        choose_dtype("int8", HALF)


def test_vllm_compiles_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening.shutil, "which", lambda name: "/bin/c++" if name == "c++" else None)
    assert choose_eager(None) == (False, [])
    assert choose_eager(True) == (True, [])
    monkeypatch.setattr(opening.shutil, "which", lambda name: None)
    eager, told = choose_eager(None)
    assert eager
    assert "slower" in told[0]
    with pytest.raises(LoadFailed, match="true or false"):
        choose_eager(1)


def test_vllm_writes_to_our_folders_only(tmp_path: Path) -> None:
    scratch = Path("/s")
    found = variables(make_spec(tmp_path, scratch=str(scratch), num_threads=3))
    assert found["VLLM_CACHE_ROOT"] == "/s/cache/vllm"
    assert found["VLLM_RPC_BASE_PATH"] == "/s"
    assert (found["OMP_NUM_THREADS"], found["VLLM_CPU_OMP_THREADS_BIND"]) == ("3", "nobind")
    long = "/a-name-that-is-long" * 5
    found = variables(make_spec(tmp_path, scratch=long, cache="/c"))
    assert found["VLLM_CACHE_ROOT"] == "/c/vllm"
    assert "VLLM_RPC_BASE_PATH" not in found  # the system bounds the names of sockets
