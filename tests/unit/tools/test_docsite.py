from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools import docsite

DECISION = SimpleNamespace(file=SimpleNamespace(src_uri="adr/1.md"))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](../../src/x.py)", "a"),
        ("![b](../../benchmarks/results/b.svg)", "![b](../pictures/b.svg)"),
        ("[c](../../src/llmos/pilot/README.md)", "[c](../cards/pilot.md)"),
        ("[d](../memory.md)", "[d](../memory.md)"),
        ("文字，\n文字\n\nwords\nwords\n", "文字，文字\n\nwords\nwords\n"),
        ("```console\nls\n```\n", "```bash\nls\n```\n"),
        ("```\n[e](../../src/x.py)\n```\n", "```\n[e](../../src/x.py)\n```\n"),
    ],
)
def test_what_is_written_becomes_what_is_shown(written: str, shown: str) -> None:
    assert docsite.on_page_markdown(written, page=DECISION) == shown
