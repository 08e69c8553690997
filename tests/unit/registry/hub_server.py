"""A stand-in of the model hub's HTTP API, for the hub's own client to talk to.

It serves repositories from memory: model info with file metadata, `resolve` with ETag and commit
headers, large files by redirect to another path with ranges; and it misbehaves on request.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


@dataclass
class Faults:
    """What goes wrong. File names; `cut` maps a name to after how many bytes each GET ends."""

    cut_once: set[str] = field(default_factory=set)
    corrupt: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    hang: set[str] = field(default_factory=set)
    hang_after: int = 10
    signed: set[str] = field(default_factory=set)
    no_ranges: bool = False
    info_status: int = 200
    error_code: str = ""
    garbage_info: bool = False


class Hub:
    """What the server serves and what it saw."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.hanging = threading.Event()
        self.release = threading.Event()
        self.url = ""
        self.cdn_url = ""
        """Another host, as at the real hub: the client treats redirects within one differently."""

    def add(self, repo: str, folder: Path) -> None:
        """Serve a folder's files as a repository."""
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        self.repos[repo] = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}

    def count(self, method: str, part: str) -> int:
        return sum(1 for m, path, _ in self.requests if m == method and part in path)

    def info(self, repo: str) -> dict[str, object]:
        siblings = []
        for name, data in self.repos[repo].items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data)}
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry["blobId"] = git
            if name.endswith(".safetensors"):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {"id": repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}


_COMMIT = {"X_Repo_Commit": COMMIT, "X_Linked_ETag": '"0"', "X_Linked_Size": "424"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        elif path == "/gone":
            self._answer(403)
        elif path.startswith("/cdn/"):
            self._body(path.removeprefix("/cdn/"))
        else:
            repo, _, rest = path.strip("/").partition("/resolve/")
            self._resolve(repo, rest.partition("/")[2])

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _info(self, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        faults = self.hub.faults
        if faults.info_status != 200:
            self._answer(faults.info_status, b"{}", X_Error_Code=faults.error_code)
        elif repo not in self.hub.repos:
            self._answer(404, b"{}", X_Error_Code="RepoNotFound")
        elif revision not in ("", "main", "v1.0", COMMIT):
            self._answer(404, b"{}", X_Error_Code="RevisionNotFound")
        elif faults.garbage_info:
            self._answer(200, b"<html>welcome to the hotel's network</html>")
        else:
            self._answer(200, json.dumps(self.hub.info(repo)).encode())

    def _resolve(self, repo: str, name: str) -> None:
        files = self.hub.repos.get(repo, {})
        if name in self.hub.faults.signed:
            self._answer(302, Location=f"{self.hub.cdn_url}/gone?Signature=s3cret", **_COMMIT)
            return
        if name not in files or name in self.hub.faults.missing:
            self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        data = files[name]
        if name.endswith(".safetensors"):
            self._answer(
                302,
                Location=f"{self.hub.cdn_url}/cdn/{repo}/{name}",
                X_Repo_Commit=COMMIT,
                X_Linked_Size=str(len(data)),
                X_Linked_ETag=f'"{hashlib.sha256(data).hexdigest()}"',
            )
            return
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        if self.command == "HEAD":
            size = str(len(data))
            self._answer(200, ETag=etag, X_Repo_Commit=COMMIT, Content_Length=size)
        else:
            if name in self.hub.faults.corrupt:
                data = bytes([data[0] ^ 1]) + data[1:]
            self._answer(200, data, ETag=etag, X_Repo_Commit=COMMIT)

    def _body(self, path: str) -> None:
        owner, repo, name = path.split("/", 2)
        repo = f"{owner}/{repo}"
        data, faults = self.hub.repos[repo][name], self.hub.faults
        if name in faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        asked = None if faults.no_ranges else self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in faults.cut_once:
            faults.cut_once.discard(name)
            self.wfile.write(data[start : start + 10])
            self.close_connection = True
            return
        if name in faults.hang:
            self.wfile.write(data[start : start + faults.hang_after])
            self.wfile.flush()
            self.hub.hanging.set()
            self.hub.release.wait(30)
            self.close_connection = True
            return
        self.wfile.write(data[start:])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of what is tested."""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port of the loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        hub.cdn_url = f"http://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.release.set()
            server.shutdown()
            thread.join()
