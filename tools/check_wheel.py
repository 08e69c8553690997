"""Check that a wheel is whole: `python tools/check_wheel.py DIST` looks at the one wheel there.

It must carry every file of the package's source tree (the bundled model, migrations, toml,
`py.typed`), the entry point and the licence, and nothing else.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 20 << 20


def expected() -> set[str]:
    """Files of the package's source tree, as paths inside a wheel."""
    source = ROOT / "src"
    files = (path.relative_to(source) for path in (source / "llmos").rglob("*") if path.is_file())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def faults(wheel: Path) -> list[str]:
    """What is wrong with the wheel, one sentence each."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = [n for n in names if n.endswith(".dist-info/entry_points.txt")]
        entry_points = archive.read(entry[0]).decode() if entry else ""
    found = [f"{name} is missing" for name in sorted(expected() - names)]
    if not any(n.startswith("llmos/pilot/") and n.endswith(".safetensors") for n in names):
        found.append("the bundled model's weights (llmos/pilot/*.safetensors) are missing")
    if "llmos = llmos.cli.main:main" not in entry_points:
        found.append("the entry point `llmos` is missing")
    if not any(n.endswith("/LICENSE") for n in names):
        found.append("the licence is missing")
    strange = {n.split("/")[0] for n in names} - {"llmos"}
    found += [f"{n} does not belong there" for n in strange if not n.endswith(".dist-info")]
    found += [f"{n} is a build product" for n in names if "__pycache__" in n]
    if wheel.stat().st_size > MAX_BYTES:
        found.append(f"{wheel.stat().st_size} bytes are over {MAX_BYTES}")
    return found


def main(folder: str) -> int:
    """0 when the one wheel in `folder` is whole."""
    wheels = list(Path(folder).glob("llmos-*.whl"))
    if len(wheels) != 1:
        print(f"{len(wheels)} wheels in {folder}, expected one", file=sys.stderr)
        return 1
    found = faults(wheels[0])
    print("\n".join(found) or f"{wheels[0].name} is whole")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "dist"))
