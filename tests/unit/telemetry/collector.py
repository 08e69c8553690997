"""A collector of traces, over HTTP, that does as it is told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer


class Received:
    """A collector that answers with `status`; `on_body` is called before."""

    def __init__(self, status: int) -> None:
        self.status, self.bodies = status, list[bytes]()
        self.on_body: Callable[[], None] = lambda: None
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                received.on_body()
                with contextlib.suppress(OSError):  # who sent it may be gone
                    self.send_response(received.status)
                    self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
