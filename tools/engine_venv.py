"""Make `.venv-EXTRA`: what `.venv` has, and one extra's engine, or what one dependency group of
the project names: `.venv/bin/python tools/engine_venv.py gguf`.

For engines that are compiled for minutes, or that not every developer wants: the suite is run with
them from there. A stamp holds what was installed; a second call with the same returns at once.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements(extra: str) -> list[str]:
    """What the extra, or the group, asks for. Raises KeyError: there is neither."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = {**said["dependency-groups"], **said["project"]["optional-dependencies"]}
    found: list[str] = known[extra]
    return found


def lend(folder: Path) -> None:
    """Let an environment see the packages of the one that runs this, and our source."""
    (packages,) = folder.glob("lib/python3.*/site-packages")
    seen = [path for path in sys.path if Path(path).name.endswith("-packages")]
    (packages / "lent.pth").write_text("\n".join([*seen, str(ROOT / "src")]) + "\n")


def make(extra: str) -> int:
    """pip's exit status; 0 when it is there already."""
    folder = ROOT / f".venv-{extra}"
    wanted = "\n".join([sys.version, sys.prefix, *requirements(extra)])
    stamp = folder / ".stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return 0
    print(f"making {folder.name}; an engine is compiled where there is no wheel of it", flush=True)
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)])
    lend(folder)
    python = str(folder / "bin" / "python")
    command = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--progress-bar",
        "off",
        "-c",
        "constraints.txt",
    ]
    code = subprocess.call([*command, *requirements(extra)], cwd=ROOT)
    if code == 0:
        stamp.write_text(wanted)
    return code


def main(arguments: list[str]) -> int:
    """0 when the environment is as asked."""
    if len(arguments) != 1:
        print("usage: engine_venv.py EXTRA", file=sys.stderr)
        return 2
    return make(arguments[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
