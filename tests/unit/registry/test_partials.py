from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from llmos.registry.partials import Partials


def test_a_folder_that_its_last_pull_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, others = fcntl.flock, ["removes it", "removes it, and another pull makes it"]

    def late(fd: int, how: int) -> None:
        if others:
            (folder,) = (tmp_path / "pulls").iterdir()
            folder.rmdir()
            if "another" in others.pop(0):
                folder.mkdir()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    partials = Partials(tmp_path / "pulls", "commit", tmp_path / "own")
    with partials.held():
        partials.path("model.safetensors").write_bytes(b"1")
        assert partials.num_bytes("model.safetensors", 2) == 1
        assert partials.path("x").parent.parent == tmp_path / "pulls"
    assert not others
