from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from tools import docs


class _Inner(pydantic.BaseModel):
    size_bytes: int = Field(10, description="How large | at most.")
    mode: Literal["a", "b"] = Field("a", description="Which.")
    names: list[str] = Field(default_factory=list, description="Who.")


class _Outer(pydantic.BaseModel):
    inner: _Inner = _Inner()
    home: str | None = Field(None, description="Where.")


def test_keys_are_flattened_with_their_kind() -> None:
    found = {key.name: key for key in docs.keys(_Outer)}
    assert list(found) == ["inner.size_bytes", "inner.mode", "inner.names", "home"]
    assert found["inner.size_bytes"].default == "10"
    assert found["inner.mode"].kind == '"a" or "b"'
    assert found["inner.names"].kind == "list of str"
    assert found["home"].kind == "str or none"
    assert found["home"].default == ""


def test_numbers_read_easily() -> None:
    assert docs.number(12345.5) == "12,345.5"
    assert docs.number(None) == ""
