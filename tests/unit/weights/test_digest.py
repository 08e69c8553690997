from __future__ import annotations

import hashlib
from pathlib import Path

from llmos.weights import file_digest, folder_digest


def test_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    path = tmp_path / "x"
    path.write_bytes(data)
    told: list[int] = []
    wanted = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert file_digest(path) == wanted
    assert file_digest(path, told.append) == wanted
    assert sum(told) == len(data)


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return folder_digest(tmp_path / name)

    first = folder("a", {"x": "1", "y": "2"})
    assert folder("b", {"y": "2", "x": "1"}) == first
    assert folder("c", {"x": "2", "y": "1"}) != first
    assert folder("d", {"x": "1", "z": "2"}) != first
    assert folder("e", {"x": "1"}) != first
