"""A server under test that can be stopped, killed and started again on its home; what it says."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import models, serving
from benchmarks.serving import HOST, Server
from llmos.sdk import Client

Options = argparse.Namespace
"""`full`: the long windows."""

SETTINGS = ("kernel.num_slots=16", "kernel.num_threads=1", "kernel.warm_spare=false")
TIMEOUT_S = 180.0
POLL_S = 0.005
_SAMPLE = re.compile(r"^([a-z_:]+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Machine:
    """A home and a port, and the server on them. Later `settings` win over earlier ones."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, serving.free_port()
        self.settings: tuple[str, ...] = SETTINGS
        self.options: tuple[str, ...] = ()
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        assert self._server is not None, "not started"
        return self._server

    def start(self, *settings: str, options: tuple[str, ...] | None = None) -> float:
        """Seconds until it was ready. Without settings or options, those of the last start."""
        if settings:
            self.settings = (*SETTINGS, *settings)
        self.options = self.options if options is None else options
        flags = [part for setting in self.settings for part in ("--set", setting)]
        began = time.perf_counter()
        self._server = serving.start(self.home, self.port, *flags, *self.options)
        return time.perf_counter() - began

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> None:
        """Idempotent."""
        if self._server is not None:
            serving.stop(self._server, sent)
            self._server = None

    def client(self) -> httpx.Client:
        return httpx.Client(**self._client_options())

    def async_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx.AsyncClient(**self._client_options(), limits=limits)

    def _client_options(self) -> dict[str, Any]:
        return {
            "base_url": f"http://{HOST}:{self.port}",
            "headers": {"Authorization": f"Bearer {self.server.token}"},
            "timeout": TIMEOUT_S,
            "trust_env": False,
        }

    def pull(self, **folders: Path) -> None:
        """Register models by name."""
        with Client(home=self.home) as sdk:
            for name, folder in folders.items():
                sdk.models.pull(f"file:{folder}", name)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """One that is not started yet; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        made = Machine(Path(folder) / "home")
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def started(*settings: str, **folders: Path) -> Iterator[Machine]:
    """One that serves, with these models registered."""
    with machine() as made:
        made.start(*settings)
        made.pull(**folders)
        yield made


def of_model(name: str) -> Path:
    """The folder of a model of random weights."""
    return models.folder(name)


def get(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    answer.raise_for_status()
    return answer.json()


def post(client: httpx.Client, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = client.post(path, json=body) if body is not None else client.post(path)
    answer.raise_for_status()
    return answer.json()


def load(client: httpx.Client, name: str) -> None:
    """Answered when it is ready."""
    post(client, f"/os/v1/models/{name}/load")


def unload(client: httpx.Client, name: str) -> None:
    """Until it has left."""
    post(client, f"/os/v1/models/{name}/unload")
    deadline = time.monotonic() + TIMEOUT_S
    while states(client, name):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not leave: {get(client, '/os/v1/replicas')}")
        time.sleep(POLL_S)


def replicas(client: httpx.Client, name: str) -> list[dict[str, Any]]:
    found = get(client, "/os/v1/replicas")["replicas"]
    return [r for r in found if r["model"].split(":")[0] == name]


def states(client: httpx.Client, name: str) -> list[str]:
    return [r["state"] for r in replicas(client, name)]


def reserved_bytes(client: httpx.Client, name: str) -> int:
    """What the ledger holds for a model's replica."""
    found = get(client, "/os/v1/memory")["devices"]
    holdings = [h for device in found for h in device["holdings"]]
    return sum(h["reserved_bytes"] for h in holdings if h["what"].split(":")[0] == name)


def worker_pid(client: httpx.Client, name: str) -> int:
    """Of the model's ready replica."""
    worker = next(r["worker_id"] for r in replicas(client, name) if r["state"] == "ready")
    workers = get(client, "/os/v1/workers")["workers"]
    return int(next(w["pid"] for w in workers if w["worker_id"] == worker))


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_metrics(text: str) -> Samples:
    """Every sample of a Prometheus text, by name and labels."""
    return {
        (name, frozenset(_LABEL.findall(labels))): float(value)
        for name, labels, value in _SAMPLE.findall(text)
    }


def metrics(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    answer.raise_for_status()
    return parse_metrics(answer.text)


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a name's samples that have these labels; 0 when there are none."""
    wanted = set(labels.items())
    return sum(v for (found, has), v in samples.items() if found == name and wanted <= has)


def gained(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """By how much a counter grew."""
    return total(after, name, **labels) - total(before, name, **labels)
