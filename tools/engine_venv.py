"""Make `.venv-EXTRA`: what `.venv` has, and one extra's engine, or what one dependency group of
the project names: `.venv/bin/python tools/engine_venv.py gguf`.

For engines that are compiled for minutes, or that not every developer wants: the suite is run with
them from there. One whose pins clash with ours (vLLM) has what it asks for from a list, and finds
of ours what that leaves out: pytest, the server. A stamp holds what was installed; a second call
with the same returns at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APART = {"vllm": "benchmarks/engine/peers/vllm.txt"}
"""Lists of what engines with an environment of their own ask for."""

UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""They come with vLLM's CPU build, made for another torch, and break its import."""


_LLAMA = ROOT / "tools" / "llama.cmake"
LEAN = {
    "gguf": {"CMAKE_ARGS": f"-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_TOP_LEVEL_INCLUDES='{_LLAMA}'"},
}
"""What spares an engine that is compiled the parts that we don't use: a minute for ten."""


def requirements(extra: str) -> list[str]:
    """What the extra, the group or the list asks for. Raises KeyError for another name."""
    if extra in APART:
        return (ROOT / APART[extra]).read_text().split()
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = {**said["dependency-groups"], **said["project"]["optional-dependencies"]}
    found: list[str] = known[extra]
    return found


def environment(extra: str) -> list[str]:
    """How the extra's engine is compiled: another way makes another environment."""
    if extra not in LEAN:
        return []
    said = {name: os.environ.get(name, value) for name, value in LEAN[extra].items()}
    return [*(f"{name}={value}" for name, value in said.items()), _LLAMA.read_text()]


def lend(folder: Path) -> None:
    """Let an environment see the packages of the one that runs this, and our source."""
    (packages,) = folder.glob("lib/python3.*/site-packages")
    seen = [path for path in sys.path if Path(path).name.endswith("-packages")]
    (packages / "lent.pth").write_text("\n".join([*seen, str(ROOT / "src")]) + "\n")


def make(extra: str) -> int:
    """pip's exit status; 0 when it is there already."""
    folder = ROOT / f".venv-{extra}"
    wanted = "\n".join([sys.version, sys.prefix, *requirements(extra), *environment(extra)])
    stamp = folder / ".stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return 0
    print(f"making {folder.name}; an engine is compiled where there is no wheel of it", flush=True)
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)])
    code = install_apart(folder, extra) if extra in APART else install(folder, extra)
    if code == 0:
        stamp.write_text(wanted)
    return code


def install(folder: Path, extra: str) -> int:
    """Beside all that we have, in the versions that we have. pip's exit status."""
    lend(folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--progress-bar", "off"]
    if extra in LEAN:
        pip.append("--no-cache-dir")  # neither take a whole one from there nor leave a lean one
    return subprocess.call(
        [*pip, "-c", "constraints.txt", *requirements(extra)],
        cwd=ROOT,
        env=LEAN.get(extra, {}) | os.environ,
    )


def install_apart(folder: Path, extra: str) -> int:
    """First what it asks for: ours is found where it has nothing. pip's exit status."""
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    code = subprocess.call([*pip, "install", "-q", "--progress-bar", "off", *requirements(extra)])
    if code == 0:
        subprocess.call([*pip, "uninstall", "-q", "-y", *UNWANTED])
        lend(folder)
    return code


def main(arguments: list[str]) -> int:
    """0 when the environment is as asked."""
    if len(arguments) != 1:
        print("usage: engine_venv.py EXTRA", file=sys.stderr)
        return 2
    return make(arguments[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
