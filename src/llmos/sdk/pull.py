"""Pulling a model: a stream of progress, and for a remote server an upload before it. Sans I/O.

`pull` is a generator of calls: it yields what to send and is sent back each answer, so that the
blocking and the asynchronous client run the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.ids import new_id
from llmos.abi.registry import PullProgress
from llmos.abi.syscall import PullModel
from llmos.errors import LLMOSError, NotFound, ServerUnreachable, StorageError
from llmos.sdk.calls import discard_upload, model_path, upload_file
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Model
from llmos.sdk.sse import SSEDecoder
from llmos.sdk.wire import (
    Call,
    FileBody,
    Patience,
    Request,
    decode,
    encode,
    error_from_envelope,
    files_of,
)

Progress = Callable[[PullProgress], None]
Steps = Generator[Call[Any], Any, Model]


def pull(config: ClientConfig, is_local: bool, wish: PullModel, progress: Progress) -> Steps:
    """`hf:org/name[@revision]`, `openai:URL#MODEL`, or `file:PATH`, where PATH is the client's.

    With `is_local` (over the home's socket) the path itself is handed over; otherwise the files
    of a model under it are sent, and dropped again should the pull be refused.
    """
    source, replace = wish.source, msgspec.structs.replace
    if not source.startswith("file:"):
        version: Model = yield pull_call(config, wish, progress)
        return version
    path = Path(source.removeprefix("file:").removeprefix("//")).expanduser().absolute()
    if not path.exists():
        raise NotFound(f"there is no {path}", param="source")
    if is_local:
        version = yield pull_call(config, replace(wish, source=f"file:{path}"), progress)
        return version
    upload_id = new_id("upl")
    try:
        yield from _upload(config, upload_id, path, progress)
        wish = replace(wish, source=f"upload:{upload_id}", name=wish.name or default_name(path))
        version = yield pull_call(config, wish, progress)
    except BaseException:
        yield from _discard(config, upload_id)
        raise
    return version


def default_name(path: Path) -> str:
    """The folder's (or file's) own name, in the letters a model name may have."""
    kept = [char if char.isascii() and char.isalnum() else "-" for char in path.resolve().stem]
    return "".join(kept).lower().strip("-") or "model"


def _upload(
    config: ClientConfig, upload_id: str, path: Path, progress: Progress
) -> Generator[Call[Any], Any, None]:
    try:
        files = files_of(path)
        sizes = {name: file.stat().st_size for name, file in files.items()}
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if not sizes:
        raise NotFound(f"there are no files in {path}", param="source")
    done, total = 0, sum(sizes.values())
    for name, size in sizes.items():

        def sent(num_bytes: int, name: str = name) -> None:
            nonlocal done
            done += num_bytes
            progress(PullProgress("upload", name, done, total))

        yield upload_file(config, upload_id, name, FileBody(files[name], size, sent))


def _discard(config: ClientConfig, upload_id: str) -> Generator[Call[Any], Any, None]:
    try:
        yield discard_upload(config, upload_id)
    except LLMOSError:
        return  # the server collects uploads that nobody pulls; the first error is the one to tell


def pull_call(config: ClientConfig, wish: PullModel, progress: Progress) -> Call[Model]:
    """`POST /os/v1/models`: events `progress`, then `done` or `error`."""
    remote = msgspec.to_builtins(wish.options.remote)
    fields = {
        "name": wish.name,
        "driver": wish.options.driver,
        "remote": remote,
        "base": wish.options.base,
    }
    body = {"source": wish.source} | {k: v for k, v in fields.items() if v is not None}
    request = Request("POST", "/os/v1/models", encode(body), Patience.LONG)
    return Call(request, lambda: PullReader(config.max_event_bytes, progress))


def quantize_call(
    config: ClientConfig, ref: str, to: str, name: str | None, progress: Progress
) -> Call[Model]:
    """`POST /os/v1/models/REF/quantize`: events as of a pull."""
    body = {"to": to} if name is None else {"to": to, "name": name}
    request = Request("POST", model_path(ref, "/quantize"), encode(body), Patience.LONG)
    return Call(request, lambda: PullReader(config.max_event_bytes, progress))


class PullReader:
    """Calls `progress` while the pull goes on; its value is the version."""

    def __init__(self, max_event_bytes: int, progress: Progress) -> None:
        self._decoder = SSEDecoder(max_event_bytes)
        self._progress = progress
        self._version: Model | None = None

    def feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if event.event == "progress":
                self._progress(decode(event.data, PullProgress))
            elif event.event == "done":
                self._version = decode(event.data, Model)
            elif event.event == "error":
                raise error_from_envelope(decode(event.data, dict[str, Any]))

    def finish(self) -> Model:
        if self._version is None:
            raise ServerUnreachable("the connection broke off before the pull was complete")
        return self._version
