"""Make `.venv` and install llmos into it: `python3 tools/venv.py run|dev`.

Runs under any Python with `venv`, before anything is installed, so it uses the standard library
only. A stamp holds a digest of what the installation depends on; a second call with the same digest
returns at once. `dev` includes all that `run` installs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "setup.log"
OLDEST, NEWEST = (3, 11), (3, 13)
TARGETS = {"run": ".[console]", "dev": ".[dev]"}


def digest() -> str:
    """Changes when the declared or pinned requirements, the interpreter or the place change."""
    sha = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        sha.update((ROOT / name).read_bytes())
    return sha.hexdigest()


def is_fresh(extra: str, wanted: str) -> bool:
    """True when this or a larger installation of the wanted digest is there."""
    stamps = [VENV / f".{name}.stamp" for name in ("dev", extra)]
    return any(stamp.is_file() and stamp.read_text() == wanted for stamp in stamps)


def create() -> None:
    """A virtual environment with pip in it, also where Debian has left `ensurepip` out."""
    if (VENV / "bin" / "python").exists() and subprocess.call(
        [str(VENV / "bin" / "python"), "-m", "pip", "--version"], stdout=subprocess.DEVNULL
    ) == 0:
        return
    print("making .venv with Python %d.%d" % sys.version_info[:2], flush=True)
    made = subprocess.call(
        [sys.executable, "-m", "venv", str(VENV)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if made == 0:
        return
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    python = str(VENV / "bin" / "python")
    subprocess.check_call([sys.executable, "-m", "pip", "-q", "--python", python, "install", "pip"])


def show(line: str, counted: dict[str, int]) -> None:
    """One short line per package on a pipe, one rewritten line on a terminal."""
    words = line.split()
    if line.startswith("Collecting"):
        counted["n"] += 1
        text = "  %3d  %s" % (counted["n"], words[1])
    elif line.startswith("Installing collected packages"):
        text = "  unpacking %d packages" % (line.count(",") + 1)
    elif line.lstrip().startswith("Downloading"):
        text = "       downloading " + " ".join(words[-2:])
    else:
        return
    if sys.stdout.isatty():
        print("\r\033[K" + text[:78], end="", flush=True)
    else:
        print(text, flush=True)


def install(extra: str) -> int:
    """Run pip with its whole output in the log and its progress on our output."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "-c", "constraints.txt", "-e", TARGETS[extra]]
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip,
    ):
        counted = {"n": 0}
        for line in pip.stdout or ():
            log.write(line)
            show(line, counted)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if pip.returncode != 0:
        print("".join(LOG.open().readlines()[-30:]), file=sys.stderr)
        print("pip failed; the whole log is in %s" % LOG, file=sys.stderr)
    return pip.returncode


def compile_kernels() -> None:
    """Ahead of the first model: torch serves where there is no compiler, so it may fail."""
    command = [str(VENV / "bin" / "python"), "-m", "llmos.drivers.native.fused.build"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr.strip()[-300:], flush=True)


def main(arguments: list[str]) -> int:
    """0 when the environment is as asked."""
    if len(arguments) != 1 or arguments[0] not in TARGETS:
        print("usage: venv.py run|dev", file=sys.stderr)
        return 2
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(
            "llmos needs Python 3.11 to 3.13, and this is %d.%d: " % sys.version_info[:2]
            + "name another with `make PYTHON=/path/to/python3.11 ...`",
            file=sys.stderr,
        )
        return 1
    extra, wanted = arguments[0], digest()
    if is_fresh(extra, wanted):
        return 0
    began = time.monotonic()
    create()
    for stamp in VENV.glob(".*.stamp"):
        stamp.unlink()
    code = install(extra)
    if code == 0:
        compile_kernels()
        (VENV / f".{extra}.stamp").write_text(wanted)
        print("ready in %.0f s" % (time.monotonic() - began), flush=True)
    return code


if __name__ == "__main__":
    os.environ.pop("PIP_REQUIRE_VIRTUALENV", None)
    sys.exit(main(sys.argv[1:]))
