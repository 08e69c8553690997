"""The kernels' library, compiled for this machine on first use and kept beside the sources.

Kept where bytecode is kept: what may write there may write the code as well. Where that is
read-only, `fallback` is used. The name holds all that the result depends on: the sources, the
compiler, its flags, the processor's features.

Run as a module it compiles ahead of time: `python -m llmos.drivers.native.fused.build`.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).with_name("csrc")
MAIN = "forward.cpp"
FLAGS = [
    "-O3",
    "-std=c++20",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
]
TIMEOUT_S = 300


class CannotBuild(Exception):
    """There is no compiler, or it failed; the text says which and why."""


def library(fallback: Path | None = None) -> Path:
    """The compiled library, made if it is not there. Raises CannotBuild."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise CannotBuild("no C++ compiler is installed (g++ or clang++)")
    name = f"llmos-{_key(compiler)}.so"
    folders = [Path(__file__).with_name("__pycache__"), *([fallback] if fallback else [])]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / name
                _compile(compiler, made)
                return made.replace(folder / name)  # whole or absent, whoever else is at it
        except OSError as error:
            reason = f"{folder} cannot be written: {error.strerror}"
    raise CannotBuild(reason)


def _compile(compiler: str, into: Path) -> None:
    command = [compiler, *FLAGS, *_machine_flags(), str(SOURCES / MAIN), "-o", str(into)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{Path(compiler).name}: {error}") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        said = (errors or done.stderr.splitlines() or ["no output"])[0]
        raise CannotBuild(f"{Path(compiler).name} failed: {said[:300]}")


def _machine_flags() -> list[str]:
    return ["-mcpu=native"] if platform.machine() in ("arm64", "aarch64") else ["-march=native"]


def _key(compiler: str) -> str:
    digest = hashlib.sha256(repr((FLAGS, _machine_flags(), _features())).encode())
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=False)
    except OSError as error:
        raise CannotBuild(f"{Path(compiler).name}: {error.strerror}") from error
    digest.update(version.stdout)
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _features() -> str:
    """What the processor can do, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    named = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join(sorted(set(named)))


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{library()}\n")
    except CannotBuild as error:
        sys.exit(f"the native engine's kernels were not compiled: {error}")
