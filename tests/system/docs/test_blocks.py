"""How pages are read. Nothing is run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.docs.blocks import BadMarker, Block, blocks

PAGE = """
```console
llmos ls   # all of them
# a remark
curl x \\
  -d '{"a":
       1}'
```
<!-- not run, make: it takes an hour -->
<!-- not run, pip: no network -->
```sh
make all
pip install x
llmos ls
```
<!-- output -->
```text
NAME
```

  <!-- not run: it needs a GPU -->
  ```console
  llmos run big
  ```

```yaml
# a.yaml
type: x
```
"""


def _read(folder: Path, text: str) -> list[Block]:
    (folder / "page.md").write_text(text, "utf-8")
    return blocks(folder / "page.md", folder)


def test_commands_are_joined_and_know_their_lines(tmp_path: Path) -> None:
    first = _read(tmp_path, PAGE)[0]
    found = [(c.line, c.text) for c in first.commands()]
    assert found == [
        (3, "llmos ls   # all of them"),
        (5, "curl x \\\n  -d '{\"a\":\n       1}'"),
    ]


def test_markers_are_for_commands_or_for_all(tmp_path: Path) -> None:
    _, some, output, whole, file = _read(tmp_path, PAGE)
    assert [c.excuse for c in some.commands()] == ["it takes an hour", "no network", ""]
    assert output.is_output and not some.is_output
    assert [(c.text, c.excuse) for c in whole.commands()] == [("llmos run big", "it needs a GPU")]
    assert (file.file, file.is_shell) == ("a.yaml", False)


@pytest.mark.parametrize("marker", ["not run", "not run:", "not run because of the weather"])
def test_an_excuse_needs_a_reason(tmp_path: Path, marker: str) -> None:
    with pytest.raises(BadMarker, match=r"page\.md:2"):
        _read(tmp_path, f"<!-- {marker} -->\n```sh\nls\n```\n")
