from __future__ import annotations

import logging
from pathlib import Path

import pytest

from llmos.abi.driver import Secret
from llmos.security.secrets import Secrets
from llmos.settings import secret_variables


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(data)


def test_a_file_comes_before_a_variable(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, {"A_API_KEY": "from-variable", "B_API_KEY": "b"})
    assert secrets.find("A_API_KEY") == Secret("from-variable")
    write(tmp_path / "A_API_KEY", b"from-file\n")
    assert secrets.find("A_API_KEY") == Secret("from-file")
    assert secrets.find("B_API_KEY") == Secret("b")


def test_a_new_value_holds_at_once(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, {})
    assert secrets.find("k") is None
    for value in (b"one", b"two"):
        write(tmp_path / "k", value)
        found = secrets.find("k")
        assert found is not None
        assert found.value == value.decode()


@pytest.mark.parametrize("name", ["", "../k", "a/b", ".", "a b", "k\0"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    write(tmp_path / "k", b"value")
    assert Secrets(tmp_path / "sub", {name: "x"}).find(name) is None


@pytest.mark.parametrize(
    ("data", "mode"),
    [(b"s3cret", 0o640), (b"s3cret", 0o604), (b"s3cret\nmore", 0o600), (b"s3cret\xff", 0o600)],
)
def test_what_cannot_be_used_is_not(
    tmp_path: Path, data: bytes, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "k", data, mode)
    with caplog.at_level(logging.ERROR):
        assert Secrets(tmp_path, {}).find("k") is None
    assert "secret k" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_nothing_is_none(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "k", data)
    assert Secrets(tmp_path, {}).find("k") is None


def test_only_keys_of_the_environment() -> None:
    environ = {"OPENAI_API_KEY": "a", "AWS_SECRET_ACCESS_KEY": "b", "PATH": "c"}
    assert secret_variables(environ) == {"OPENAI_API_KEY": "a"}
