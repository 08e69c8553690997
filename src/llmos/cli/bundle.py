"""What `debug bundle` packs: everything somebody needs who was not there, and nothing secret.

Each part is made on its own: one that cannot be made is in the manifest with the reason.
"""

from __future__ import annotations

import io
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.sdk import Client
    from llmos.telemetry.redact import Redactor

LOG_TAIL_BYTES = 1024 * 1024
MAX_STORIES = 100
LOGS = ("llmos.log", "serve.log")

Make = Callable[[], bytes]


def write(path: Path, home: Path, client: Client) -> dict[str, str]:
    """The bundle at `path`, private; what is in it, and what is not and why. Raises
    StorageError."""
    from llmos.errors import LLMOSError, StorageError
    from llmos.telemetry.redact import Redactor

    told: dict[str, str] = {}
    redact = Redactor(known_secrets(home))
    folder = path.name.removesuffix(".tar.gz")
    try:
        path.touch(mode=0o600)
        with tarfile.open(path, "w:gz") as archive:
            for name, make in parts(home, client, redact):
                try:
                    body = make()
                except (LLMOSError, OSError, ValueError) as error:
                    told[name] = redact.text(f"not here: {error}")
                    continue
                _add(archive, f"{folder}/{name}", body)
                told[name] = f"{len(body)} bytes"
            _add(archive, f"{folder}/manifest.json", _json(redact, told))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return told


def known_secrets(home: Path) -> Iterator[str]:
    """Every value that we know to be one: of the home, and of our own environment."""
    import llmos.settings
    from llmos.sdk.locate import locate

    yield from llmos.settings.known_secrets(home)
    yield locate().api_key or ""


def parts(home: Path, client: Client, redact: Redactor) -> Iterator[tuple[str, Make]]:
    """Names and how each is made; the second half needs a server."""

    def json(make: Callable[[], Any]) -> Make:
        return lambda: _json(redact, make())

    yield "versions.json", json(versions)
    yield "settings.json", json(settings)
    yield "doctor.json", json(lambda: _checks(home))
    for name in LOGS:
        yield f"logs/{name}", lambda name=name: _log(redact, home / "logs" / name)  # type: ignore[misc]
    yield "status.json", json(client.status)
    yield "health.json", json(client.health)
    yield "memory.json", json(client.memory)
    yield "replicas.json", json(client.replicas)
    yield "workers.json", json(client.workers)
    yield "models.json", json(client.models.list)
    yield "processes.json", json(client.processes.list)
    yield "stories.json", json(lambda: stories(client))
    yield "metrics.txt", lambda: redact.text(client.metrics()).encode()


def versions() -> dict[str, Any]:
    """Of llmos, Python, the system, and every package that is installed."""
    import os
    import platform
    from importlib import metadata

    from llmos import __version__

    found = {d.name: d.version for d in metadata.distributions() if d.name}
    return {
        "llmos": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": dict(sorted(found.items())),
    }


def settings() -> dict[str, Any]:
    """As a server started here would have them, and where those are from that are no defaults."""
    import llmos.settings
    from llmos.cli.configure import plain

    entries = llmos.settings.origins(llmos.settings.load({}))
    return {
        "settings": {entry.key: plain(entry.value) for entry in entries},
        "origins": {entry.key: entry.origin for entry in entries if entry.origin != "default"},
    }


def stories(client: Client) -> list[Any]:
    """Of the live processes and the newest others: every decision about them."""
    from llmos.errors import NotFound

    found = []
    for process in client.processes.list()[:MAX_STORIES]:
        try:
            found.append(client.processes.show(process.process_id))
        except NotFound:  # forgotten in between
            continue
    return found


def _checks(home: Path) -> list[dict[str, str]]:
    from llmos.cli.doctor import checks

    return [{"check": c.name, "state": c.state, "told": c.told} for c in checks(home)]


def _log(redact: Redactor, path: Path) -> bytes:
    """Its end, line by line: those that are JSON by their fields."""
    import msgspec

    from llmos.telemetry.logtail import parse

    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        lines = file.read().splitlines()[size > LOG_TAIL_BYTES :]
    made = []
    for line in lines:
        if line.startswith(b"{"):
            made.append(msgspec.json.encode(redact.value(parse(line))))
        else:
            made.append(redact.text(line.decode(errors="replace")).encode())
    return b"\n".join(made) + b"\n"


def _json(redact: Redactor, value: Any) -> bytes:
    import msgspec

    from llmos.sdk.wire import to_wire

    plain = msgspec.to_builtins(to_wire(value), enc_hook=str)
    return msgspec.json.format(msgspec.json.encode(redact.value(plain)), indent=1) + b"\n"


def _add(archive: tarfile.TarFile, name: str, body: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(body), 0o600, int(time.time())
    archive.addfile(info, io.BytesIO(body))
