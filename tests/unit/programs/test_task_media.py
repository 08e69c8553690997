"""Images and recordings of a task's rows: what is read, and that no file is left."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.inference import ItemsPrompt, Options
from llmos.abi.tasks import TaskKind, TaskSpec
from llmos.errors import InvalidRequest
from llmos.programs.task import media
from llmos.programs.task.items import Itemwise

PACKED = base64.b64encode(b"png").decode()


@pytest.mark.parametrize("value", [PACKED, f" {PACKED}\n", f"data:image/png;base64,{PACKED}"])
def test_base64_and_data_urls_are_read(value: str) -> None:
    assert media.read_media(value, "image") == b"png"


@pytest.mark.parametrize("value", ["", None, 3, "!!", "data:image/png,abc", "https://x/a.png"])
def test_what_is_neither_names_its_column(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        media.read_media(value, "image")
    assert caught.value.param == "image"


@pytest.mark.parametrize(
    ("kind", "column"), [(TaskKind.CAPTION, "image"), (TaskKind.TRANSCRIBE, "audio")]
)
def test_bytes_go_to_files_that_the_caller_removes(
    kind: TaskKind, column: str, tmp_path: Path
) -> None:
    work = Itemwise(TaskSpec(kind, "m", work="w"), str(tmp_path))
    assert (work.needs, work.pack) == ([column], 8)
    pieces = [work.piece({column: PACKED}), work.piece({column: base64.b64encode(b"b").decode()})]
    request = work.request(pieces, Options())
    prompt = request.prompt
    assert isinstance(prompt, ItemsPrompt)
    assert prompt.items == [{"blob": 0}, {"blob": 1}]
    assert [Path(blob.path or "").read_bytes() for blob in prompt.blobs] == [b"png", b"b"]
    media.remove(media.files_of(request))
    assert list(tmp_path.iterdir()) == []
