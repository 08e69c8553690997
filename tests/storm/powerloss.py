"""What a disk holds after the power went: the notes of `powerloss.c`, and how to act on them.

A process runs with the library preloaded (`Disk.env`) and is killed. `Disk.cut` then takes back
what no fsync had covered. With a `Random`, only some of it, as a cache being written back would
have it: every page of a file is as it was at some moment since its last fsync, names are as they
were at some moment since their folder's.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("powerloss.c")
MAGIC = 0x53544F52
PAGE_BYTES = 4096
WRITE, FSYNC, NAMES = 1, 2, 4
"""Bits of `Disk.fail`'s mask."""

_NOTE = struct.Struct("<IIQQQQIIQ")
_CONTROL = struct.Struct("<ii")


@dataclass(frozen=True, slots=True)
class Note:
    """One change or fsync. `kind`: W write, T truncate, S fsync, D fsync of a folder, C new name,
    R rename, U removed name, M new folder. `old`: the bytes that were there (R: the grave's path).
    """

    kind: str
    inode: int
    offset: int
    new_len: int
    old_size: int
    name: str
    other: str
    old: bytes


def build(folder: Path) -> Path:
    """Compile the library. Raises FileNotFoundError without a compiler."""
    made = folder / "powerloss.so"
    command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return made


class Disk:
    """A folder on a disk whose power can be cut. `folder` must be on one file system with it."""

    def __init__(self, root: Path, folder: Path, library: Path) -> None:
        self.root = root.resolve()
        self._log = folder / "notes"
        self._graves = folder / "graves"
        self._control = folder / "control"
        self._graves.mkdir(parents=True, exist_ok=True)
        self._control.write_bytes(_CONTROL.pack(0, 0))
        self.env = {
            "LD_PRELOAD": str(library),
            "STORM_ROOT": str(self.root),
            "STORM_LOG": str(self._log),
            "STORM_GRAVES": str(self._graves),
            "STORM_CONTROL": str(self._control),
        }

    def fail(self, errno_: int, mask: int) -> None:
        """From now on operations of the mask fail so; 0 ends it."""
        with self._control.open("r+b") as file:
            file.write(_CONTROL.pack(errno_, mask))

    def turn(self) -> None:
        """A process was killed and its power was not cut: what it noted still counts, and the next
        one's notes go into a file of their own, since its last may be cut short."""
        if self._log.exists():
            self._log.rename(self._log.with_name(f"notes-{len(self._logs()):06}"))

    def _logs(self) -> list[Path]:
        return sorted(self._log.parent.glob("notes*"), key=lambda path: (path == self._log, path))

    def notes(self) -> list[Note]:
        """Everything noted since the last cut; what a kill cut short is left out."""
        return [note for log in self._logs() for note in _parse(log.read_bytes())]

    def cut(self, chance: random.Random | None = None) -> int:
        """The power fails: call it when the process is dead. The number of changes taken back."""
        notes = self.notes()
        lost = _lost(notes)
        limbo = Path(tempfile.mkdtemp(dir=self._graves))
        where = _inodes([self.root, self._graves])
        for inode, changes in _by_inode(lost).items():
            if inode in where:
                _take_back(where[inode], changes, chance)
        names = [note for note in lost if note.kind in "CRUM"]
        keep = chance.randint(0, len(names)) if chance is not None else 0
        for note in reversed(names[keep:]):
            _take_name_back(note, limbo)
        for leftover in self.root.rglob("*-shm"):
            leftover.unlink()
        self.settle()
        return len(lost)

    def settle(self) -> None:
        """Everything up to now is on the disk: forget the notes."""
        for log in self._logs():
            log.unlink()
        shutil.rmtree(self._graves, ignore_errors=True)
        self._graves.mkdir()


def _parse(data: bytes) -> Iterator[Note]:
    at = 0
    while at + _NOTE.size <= len(data):
        magic, kind, inode, offset, new_len, old_size, name_len, other_len, old_len = (
            _NOTE.unpack_from(data, at)
        )
        assert magic == MAGIC, "the notes are damaged"
        end = at + _NOTE.size + name_len + other_len + old_len
        if end > len(data):
            return
        at += _NOTE.size
        name = os.fsdecode(data[at : at + name_len])
        other = os.fsdecode(data[at + name_len : at + name_len + other_len])
        old = data[at + name_len + other_len : end]
        yield Note(chr(kind), inode, offset, new_len, old_size, name, other, old)
        at = end


def _lost(notes: list[Note]) -> list[Note]:
    """Changes that no later fsync of their file or folder covers, in order."""
    synced_files: set[int] = set()
    synced_folders: set[str] = set()
    lost = []
    for note in reversed(notes):
        if note.kind == "S":
            synced_files.add(note.inode)
        elif note.kind == "D":
            synced_folders.add(note.name)
        elif note.kind in "WT":
            if note.inode not in synced_files:
                lost.append(note)
        elif str(Path(note.other if note.kind == "R" else note.name).parent) not in synced_folders:
            lost.append(note)
    return lost[::-1]


def _by_inode(lost: list[Note]) -> dict[int, list[Note]]:
    changes: dict[int, list[Note]] = defaultdict(list)
    for note in lost:
        if note.kind in "WT":
            changes[note.inode].append(note)
    return changes


def _inodes(roots: list[Path]) -> dict[int, Path]:
    found = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found[path.lstat().st_ino] = path
    return found


def _take_back(path: Path, changes: list[Note], chance: random.Random | None) -> None:
    """Undo the changes since the file's last fsync; by chance only some, page by page."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    now = path.read_bytes()
    versions: dict[int, list[bytes]] = defaultdict(list)
    sizes = [len(now)]
    content = bytearray(now)
    for note in reversed(changes):
        touched = _pages(note, len(content))
        for page in touched:
            versions[page].append(_page(content, page))
        _undo(content, note)
        sizes.append(len(content))
    if chance is not None:
        size = chance.choice(sizes)
        content += bytes(max(0, max(sizes) - len(content)))
        for page, seen in versions.items():
            start = page * PAGE_BYTES
            content[start : start + PAGE_BYTES] = chance.choice(
                [*seen, _page(content, page)]
            ).ljust(PAGE_BYTES, b"\0")
        del content[size:]
    path.write_bytes(content)
    path.chmod(mode)


def _pages(note: Note, size: int) -> range:
    end = max(note.offset + max(note.new_len, len(note.old)), note.old_size, size)
    if note.kind == "W":
        end = note.offset + note.new_len
    return range(note.offset // PAGE_BYTES, -(-end // PAGE_BYTES))


def _page(content: bytearray, page: int) -> bytes:
    return bytes(content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])


def _undo(content: bytearray, note: Note) -> None:
    content[note.offset : note.offset + len(note.old)] = note.old
    if len(content) > note.old_size:
        del content[note.old_size :]
    else:
        content += bytes(note.old_size - len(content))


def _take_name_back(note: Note, limbo: Path) -> None:
    name = Path(note.name)
    if note.kind in "CM":
        if name.is_symlink() or name.exists():
            name.rename(limbo / f"{note.inode}-{len(list(limbo.iterdir()))}")
    elif note.kind == "U":
        if not name.exists():
            _restore(Path(note.other), name)
    else:
        other = Path(note.other)
        if other.exists() and other.lstat().st_ino == note.inode:
            name.parent.mkdir(parents=True, exist_ok=True)
            other.rename(name)
        if note.old:
            _restore(Path(os.fsdecode(note.old)), other)


def _restore(grave: Path, name: Path) -> None:
    if grave.exists() and name.parent.is_dir():
        os.link(grave, name)
