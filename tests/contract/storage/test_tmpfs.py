from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.storage import tmpfs
from llmos.storage.tmpfs import MemoryFolder, find_memory_folder


def opened_folder(home: Path) -> MemoryFolder:
    folder = find_memory_folder(home)
    assert folder is not None
    return folder


def test_it_is_private_and_gone_when_closed(shm: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = opened_folder(tmp_path)
    finally:
        os.umask(old)
    assert folder.path.parent == shm
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.path.name.startswith(f"llmos-{os.geteuid()}-")
    (folder.path / "x.snap").write_bytes(b"x")
    folder.close()
    folder.close()
    assert list(shm.iterdir()) == []


def test_each_home_has_its_own_under_whichever_name_it_is_opened(shm: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    one, other = opened_folder(tmp_path / "a"), opened_folder(tmp_path / "b")
    assert one.path != other.path
    assert find_memory_folder(tmp_path / "link") is None  # the same one, in use
    one.close()
    again = opened_folder(tmp_path / "link")
    assert again.path == one.path
    again.close()
    other.close()


HOLD = """
import sys
from pathlib import Path
from llmos.storage import tmpfs
tmpfs.SHARED = Path(sys.argv[1])
folder = tmpfs.find_memory_folder(Path(sys.argv[2]))
(folder.path / "x.snap").write_bytes(b"x")
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_server_left_goes_and_a_living_one_keeps_it(
    shm: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shm), str(tmp_path / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        mine = opened_folder(tmp_path / "b")
        assert (path / "x.snap").exists()
        assert find_memory_folder(tmp_path / "a") is None
        other.kill()
    mine.close()
    assert (path / "x.snap").exists()
    mine = opened_folder(tmp_path / "b")
    assert not path.exists()
    mine.close()


def _link(path: Path) -> None:
    target = path.parent / "elsewhere"
    target.mkdir(mode=0o700)
    (target / "precious").write_text("x")
    path.symlink_to(target)


ATTACKS: dict[str, Callable[[Path], object]] = {
    "a link": _link,
    "a dead link": lambda path: path.symlink_to("nowhere"),
    "a file": lambda path: path.write_text("x"),
    "a folder others may write to": lambda path: (path.mkdir(), path.chmod(0o777)),
    "a folder others may read": lambda path: (path.mkdir(), path.chmod(0o750)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_ours_alone_is_refused_and_left(
    shm: Path, tmp_path: Path, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    ATTACKS[attack](shm / tmpfs._name(tmp_path))
    before = sorted(shm.rglob("*"))
    assert find_memory_folder(tmp_path) is None
    assert "no snapshots are kept in memory" in caplog.text
    assert sorted(shm.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_somebody_else_s_folder_is_refused(shm: Path, tmp_path: Path) -> None:
    path = shm / tmpfs._name(tmp_path)
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    assert find_memory_folder(tmp_path) is None
    assert path.exists()


def test_a_place_where_others_may_remove_it_is_refused(shm: Path, tmp_path: Path) -> None:
    shm.chmod(0o777)
    assert find_memory_folder(tmp_path) is None
    shm.chmod(0o1777)
    opened_folder(tmp_path).close()


def test_a_disk_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if tmpfs._is_tmpfs(tmp_path.stat().st_dev):
        pytest.skip("even the disk is in memory here")
    monkeypatch.setattr(tmpfs, "SHARED", tmp_path)
    assert find_memory_folder(tmp_path) is None
    for nowhere in ("mounts", "shared"):
        monkeypatch.setattr(tmpfs, nowhere.upper(), tmp_path / "nowhere")
        assert find_memory_folder(tmp_path) is None
