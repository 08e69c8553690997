"""Files and functions stay small enough to be read whole."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from tests.arch.source import ROOT, functions, modules

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
MAX_MEDIAN_FILE_LINES = 150
MAX_MEDIAN_FUNCTION_LINES = 12


def test_no_file_is_too_long() -> None:
    """Of tests, benchmarks and tools neither."""
    sizes = {
        path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n")
        for folder in ("src", "tests", "benchmarks", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(sizes) > len(modules())
    assert not {name: lines for name, lines in sizes.items() if lines > MAX_FILE_LINES}


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{f.module}.{f.qualname}": f.num_lines
        for m in modules()
        for f in functions(m)
        if f.num_lines > MAX_FUNCTION_LINES
    }
    assert not too_long


def test_medians(record_testsuite_property: Callable[[str, object], None]) -> None:
    files = statistics.median(m.num_lines for m in modules() if m.num_lines > 3)
    bodies = statistics.median(f.num_lines for m in modules() for f in functions(m))
    record_testsuite_property("median_file_lines", files)
    record_testsuite_property("median_function_lines", bodies)
    print(f"median file {files} lines, median function {bodies} lines")
    assert files <= MAX_MEDIAN_FILE_LINES
    assert bodies <= MAX_MEDIAN_FUNCTION_LINES
