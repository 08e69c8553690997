"""From a task file, or a command line, to the body that the server takes: inputs are sent first.

A task file is YAML or JSON with the fields of POST /os/v1/tasks, and two that are for this machine:
`input.path` (a file, a folder, `-` for stdin) and `output.path` (a file, or several). Paths are
relative to the task file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from llmos.sdk import Client

MAX_FILE_BYTES = 16 << 20
FORMATS = ("jsonl", "json", "csv", "parquet", "md", "html", "txt")
_ALIASES = {"ndjson": "jsonl", "markdown": "md", "htm": "html", "text": "txt"}
STDIN = "-"


class Planned(NamedTuple):
    """A body without its file, where that is, and where each format of the results goes."""

    body: dict[str, Any]
    source: str | None
    targets: dict[str, Path]


def read_task_file(path: Path) -> Planned:
    """Raises InvalidRequest for what is no task file."""
    from llmos.errors import InvalidRequest

    body = read_yaml(path, "task")
    source, targets = None, {}
    given = body.get("input")
    if isinstance(given, dict) and "path" in given:
        source = given.pop("path")
        if not isinstance(source, str):
            raise InvalidRequest("'input.path' is a text", param="input.path")
        if source != STDIN:
            source = str(path.parent / Path(source).expanduser())
    out = body.get("output")
    if isinstance(out, dict) and "path" in out:
        paths = out.pop("path")
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
            raise InvalidRequest("'output.path' is a text, or a list of them", param="output.path")
        targets = plan_targets([path.parent / Path(one).expanduser() for one in paths])
        out.setdefault("formats", list(targets))
    return Planned(body, source, targets)


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The fields of a file; `what` it holds is for the error. Raises InvalidRequest."""
    import yaml

    from llmos.errors import InvalidRequest

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path} is over {MAX_FILE_BYTES} bytes: no {what} file")
        body = yaml.load(path.read_text("utf-8"), _loader())  # noqa: S506 - a safe one
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", param="FILE") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise InvalidRequest(f"{path} is not YAML: {text}", param="FILE") from error
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        raise InvalidRequest(f"{path} holds no {what}: fields with values", param="FILE")
    return body


def _loader() -> Any:
    """YAML's safe loader, to which yes, no, on and off are words (YAML 1.2): labels are often."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Its resolvers are its own."""

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    plain = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", plain, list("tTfF"))
    return Loader


def plan_targets(paths: list[Path]) -> dict[str, Path]:
    """By the format that a path's suffix names. Raises InvalidRequest."""
    from llmos.errors import InvalidRequest

    targets: dict[str, Path] = {}
    for path in paths:
        suffix = path.suffix.removeprefix(".").lower()
        name = _ALIASES.get(suffix, suffix)
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise InvalidRequest(f"{path}: its suffix is none of {known}", param="output")
        if name in targets:
            raise InvalidRequest(f"{targets[name]} and {path} are both {name}", param="output")
        if not path.parent.is_dir():
            raise InvalidRequest(f"{path.parent} is no folder", param="output")
        targets[name] = path
    return targets


def send_input(client: Client, planned: Planned) -> dict[str, Any]:
    """The body with the id of its file, which is on the server now."""
    body = dict(planned.body)
    if planned.source is None:
        return body
    given = dict(body.get("input") or {})
    with _as_file(planned.source, given.get("format")) as path:
        given["file"] = client.files.put(path, purpose="batch").id
    return body | {"input": given}


@contextlib.contextmanager
def _as_file(source: str, named_format: str | None) -> Iterator[Path]:
    """The file itself; of stdin and of a folder, one that is made for now."""
    import shutil
    import tempfile

    path = Path(source).expanduser()
    if source != STDIN and not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="llmos-task-") as folder:
        if source == STDIN:
            made = Path(folder) / f"stdin.{named_format or 'txt'}"
            with made.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        else:
            made = Path(folder) / f"{path.resolve().name or 'folder'}.jsonl"
            _pack(path, made)
        yield made


def _pack(folder: Path, made: Path) -> None:
    """One line for each file of a folder, hidden ones left out: its name and its text. A file that
    is no text is there without one, and so fails alone. Raises InvalidRequest, StorageError."""
    import msgspec

    from llmos.cli.config import LIMITS
    from llmos.errors import InvalidRequest, StorageError

    number = 0
    with made.open("wb") as out:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in Path(name).parts) or not path.is_file():
                continue
            number += 1
            if number > LIMITS.max_folder_files:
                text = f"{folder} holds more than {LIMITS.max_folder_files} files"
                raise InvalidRequest(text, param="input")
            row: dict[str, Any] = {"file": name}
            try:
                if path.stat().st_size <= LIMITS.max_folder_file_bytes:
                    row["text"] = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                row["text"] = None
            except OSError as error:
                raise StorageError(f"{path} cannot be read: {error.strerror}") from error
            out.write(msgspec.json.encode(row) + b"\n")
    if not number:
        raise InvalidRequest(f"{folder} holds no files", param="input")
