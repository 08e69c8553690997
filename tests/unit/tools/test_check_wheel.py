from __future__ import annotations

import zipfile
from pathlib import Path

from tools import check_wheel

WHOLE = {
    "llmos-0.1.0.dist-info/entry_points.txt": "[console_scripts]\nllmos = llmos.cli.main:main\n",
    "llmos-0.1.0.dist-info/licenses/LICENSE": "free",
}


def _wheel(folder: Path, leave_out: str = "", also: str = "") -> Path:
    path = folder / "llmos-0.1.0-py3-none-any.whl"
    names = {**dict.fromkeys(check_wheel.expected(), "x"), "llmos/pilot/model.safetensors": "w"}
    names |= WHOLE
    if also:
        names[also] = "?"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in names.items():
            if not leave_out or not name.startswith(leave_out):
                archive.writestr(name, text)
    return path


def test_a_whole_wheel_has_no_faults(tmp_path: Path) -> None:
    assert check_wheel.faults(_wheel(tmp_path)) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "llmos/py.typed is missing" in check_wheel.faults(_wheel(tmp_path, "llmos/py.typed"))


def test_a_wheel_without_the_model_is_not_whole(tmp_path: Path) -> None:
    found = check_wheel.faults(_wheel(tmp_path, "llmos/pilot/"))
    assert any("bundled model" in fault for fault in found)


def test_strangers_are_named(tmp_path: Path) -> None:
    assert check_wheel.faults(_wheel(tmp_path, also="tests/x.py")) == [
        "tests does not belong there"
    ]
