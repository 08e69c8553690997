from __future__ import annotations

from pathlib import Path

import pytest

from llmos.weights.card import find_license


@pytest.mark.parametrize(
    ("text", "license_"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\r\nlicense: 'mit'  # free\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: 通义千问\n---\n", "通义千问"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("---\nlicense: mit\n", ""),
        ("", ""),
    ],
)
def test_license(text: str, license_: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert find_license(tmp_path) == license_


def test_no_card(tmp_path: Path) -> None:
    assert find_license(tmp_path) == ""
