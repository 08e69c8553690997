"""Our side: a whole server with the model loaded, its requests over HTTP from another process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import models
from benchmarks.engine import client
from benchmarks.engine.environments import Absent
from benchmarks.engine.peers.protocol import Request
from benchmarks.serving import HOST, Server, serving
from llmos.errors import LLMOSError
from llmos.sdk import Client

NAME = "bench"
ROUTE = "/v1/completions"
RUN_TIMEOUT_S = 600.0
SETTINGS = ("kernel.warm_spare=false",)
PRECISIONS: dict[str, tuple[str, ...]] = {
    "bf16": (),
    "int8": ("kernel.dtype=int8",),
    "int4": ("kernel.dtype=int4",),
}
"""The settings that load a bf16 model in a precision; one that the server refuses is absent."""


@dataclass(frozen=True)
class Load:
    """What is loaded and for how much; the same words as a peer's Setup.

    `num_threads` is for the peers; ours has `our_threads`, 0 where its engine is to choose.
    """

    model: str
    precision: str
    num_threads: int
    num_slots: int
    context_tokens: int
    our_threads: int = 0


class Ours:
    """A running server; `run` has the signature of a peer's."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def run(self, requests: list[Request], salt: str | None = None) -> list[list[float]]:
        """When each token of each request was read by the client, from when the run began."""
        plan = client.Plan(
            HOST,
            self.server.port,
            [self._request(request, salt) for request in requests],
            [request.due_s for request in requests],
            RUN_TIMEOUT_S + max(request.due_s for request in requests),
        )
        return [record.token_s for record in client.run(plan)]

    def _request(self, request: Request, salt: str | None) -> bytes:
        body = {
            "model": NAME,
            "prompt": request.prompt,
            "max_tokens": request.num_new,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        if salt is not None:
            body["llmos"] = {"cache_salt": salt}
        return self.server.request(body, ROUTE)


def settings(load: Load) -> tuple[str, ...]:
    """Of the server, as `--set` takes them."""
    return (
        *SETTINGS,
        f"kernel.num_slots={load.num_slots}",
        f"kernel.num_threads={load.our_threads}",
        f"kernel.max_context_tokens={load.context_tokens}",
        *PRECISIONS[load.precision],
    )


def source() -> Path:
    """Where a worker finds llmos: its environment is clean, so that PYTHONPATH is not in it."""
    done = subprocess.run(
        [sys.executable, "-c", "import llmos; print(llmos.__file__)"],
        capture_output=True,
        text=True,
        env={},
        cwd=tempfile.gettempdir(),
        check=False,
    )
    return Path(done.stdout.strip() or "nowhere")


@contextlib.contextmanager
def start(load: Load) -> Iterator[Ours]:
    """A server with the model resident. Raises Absent when it cannot load it so."""
    flags = [part for setting in settings(load) for part in ("--set", setting)]
    with contextlib.ExitStack() as stack:
        try:
            server, _ = stack.enter_context(serving(*flags))
            sdk = stack.enter_context(Client(home=server.home))
            sdk.models.pull(f"file:{models.folder(load.model)}", NAME)
            sdk.models.load(NAME)
        except (RuntimeError, LLMOSError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise Absent(lines[-1].strip()[-300:]) from error
        yield Ours(server)
