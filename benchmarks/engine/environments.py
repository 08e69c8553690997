"""A virtual environment for each peer, outside of the repository, from a pinned list.

Made once: a stamp in it holds a digest of the list. What does not install leaves its reason beside
the log and is tried again only when the list changes or the folder is removed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import models

LISTS = Path(__file__).resolve().parent / "peers"
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""They come with some peers, made for another torch, and break its import."""
INSTALL_TIMEOUT_S = 3600.0
LAST_LINES = 3


class Absent(Exception):
    """A peer that cannot take part, and why."""


@dataclass(frozen=True)
class Peer:
    """`module` is its program in `benchmarks.engine.peers`, `environment` names its list."""

    name: str
    title: str
    module: str
    environment: str
    precisions: tuple[str, ...] = ("bf16", "int8", "int4")
    max_width: int = 32
    batches_late: bool = True
    """It takes requests while others run (else every request of a run starts at once)."""
    preload: str = ""
    """A library of its environment that it asks to have loaded before all others."""


PEERS = (
    Peer("openvino", "OpenVINO GenAI", "openvino", "openvino"),
    Peer("vllm", "vLLM CPU", "vllm", "vllm", preload="lib/libiomp5.so"),
    Peer("llama", "llama.cpp", "llama", "llama"),
    Peer("generate", "generate", "transformers", "transformers", ("bf16",), batches_late=False),
    Peer("continuous", "generate_batch", "continuous", "transformers", ("bf16",), max_width=8),
)
"""`generate_batch` is ten times slower: its wide runs would take the time of all others."""


def folder(name: str) -> Path:
    """Of an environment."""
    return models.cache() / "peers" / name


def python(name: str) -> Path:
    """The interpreter of an environment, which is made first. Raises Absent."""
    place, wanted = folder(name), digest(name)
    stamp, reason = place / "installed", place.with_name(f"{name}.absent")
    interpreter = place / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    if reason.exists() and reason.read_text().startswith(wanted):
        raise Absent(reason.read_text().partition("\n")[2])
    print(f"installing {name} for {sys.version_info[0]}.{sys.version_info[1]}", flush=True)
    began = time.perf_counter()
    try:
        install(name, place)
    except (OSError, subprocess.SubprocessError) as error:
        why = f"did not install: {last_lines(log(name)) or error}"
        reason.write_text(f"{wanted}\n{why}")
        raise Absent(why) from error
    stamp.write_text(wanted)
    print(f"-- installed {name}: {time.perf_counter() - began:.0f} s", flush=True)
    return interpreter


def digest(name: str) -> str:
    """Of what is installed, and for which Python."""
    text = f"{sys.version_info[:2]}\n{(LISTS / f'{name}.txt').read_text()}"
    return hashlib.sha256(text.encode()).hexdigest()


def log(name: str) -> Path:
    """What pip said."""
    return folder(name).with_name(f"{name}.log")


def install(name: str, place: Path) -> None:
    """A fresh environment with all of the list, without what breaks it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    interpreter = place / "bin" / "python"
    with log(name).open("w") as said:
        _call(said, sys.executable, "-m", "venv", "--clear", "--without-pip", str(place))
        pip = (sys.executable, "-m", "pip", "--python", str(interpreter))
        _call(said, *pip, "install", "--progress-bar", "off", "-r", str(LISTS / f"{name}.txt"))
        _call(said, *pip, "uninstall", "-y", *UNWANTED)


def _call(said: object, *command: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        command,
        stdout=said,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        env=environment,
        timeout=INSTALL_TIMEOUT_S,
        check=True,
    )


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """The end of a log in one line; nothing when there is none."""
    if not path.exists():
        return ""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    return " / ".join([line for line in lines if line][-count:])[-400:]
