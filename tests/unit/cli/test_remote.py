from __future__ import annotations

from pathlib import Path

import pytest

from llmos.abi.remote import Price
from llmos.cli.remote import as_remote
from llmos.errors import InvalidRequest, NotFound

YAML = """
endpoints:
  - url: https://one.example/v1
    model: m
    key: ONE_API_KEY
    price: {input: 0.15, output: 0.6}
  - url: https://two.example/v1
    model: org/m
context_length: 32768
"""


def test_other_sources_are_left_alone() -> None:
    assert as_remote("hf:org/name", None) == ("hf:org/name", None)
    with pytest.raises(InvalidRequest, match="key-env"):
        as_remote("hf:org/name", "KEY")


def test_an_address() -> None:
    source, spec = as_remote("openai:https://h/v1#m", "MY_API_KEY")
    assert source == "openai:https://h/v1#m"
    assert spec is not None
    assert spec.keys == ["MY_API_KEY"]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(YAML)
    source, spec = as_remote(f"openai:{path}", None)
    assert source == "openai:https://one.example/v1#m"
    assert spec is not None
    assert [endpoint.price for endpoint in spec.endpoints] == [Price(0.15, 0.6), None]
    assert spec.hosts == ["one.example:443", "two.example:443"]
    assert as_remote(f"openai:{path}", "K")[1].keys == ["K"]  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["a: [", "just text", "endpoints: 5", ""])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest):
        as_remote(f"openai:{path}", None)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        as_remote(f"openai:{tmp_path / 'none.yaml'}", None)
