"""What goes wrong with a remote, as errors of ours: each says who may be asked next."""

from __future__ import annotations

import json
import re
from typing import Any

from llmos.drivers.openai.limits import MAX_SAID_CHARS
from llmos.errors import ContextLengthExceeded, InvalidRequest, LLMOSError, RemoteFailed

_TRIES_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_MISCONFIGURED = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 426})
_BUSY = frozenset({429, 503, 529})


class Fault(Exception):
    """One attempt failed. `again`: the same endpoint may do better later; `elsewhere`: another one
    may. `held_s`: it has asked to be left alone so long. `blames`: it counts against it."""

    def __init__(
        self,
        error: LLMOSError,
        *,
        again: bool = True,
        elsewhere: bool = True,
        blames: bool = True,
        held_s: float | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.elsewhere = elsewhere
        self.blames = blames
        self.held_s = held_s


def failed(cause: str, host: str, what: str, *, retry_after_s: float | None = None) -> RemoteFailed:
    """The error of a cause."""
    details = {"cause": cause, "host": host}
    return RemoteFailed(f"{host} {what}", retry_after_s=retry_after_s, details=details)


def of_status(
    status: int, body: bytes, host: str, held_s: float | None, secrets: list[str]
) -> Fault:
    """What an answer other than 200 means. `secrets` are struck out of its words."""
    said = _said(body, secrets)
    tail = f": {said}" if said else ""
    if status in _TRIES_AGAIN:
        cause = "busy" if status in _BUSY else "broken"
        error: LLMOSError = failed(cause, host, f"answered {status}{tail}", retry_after_s=held_s)
        return Fault(error, blames=status != 429, held_s=held_s)
    if status in _MISCONFIGURED or status < 400:
        error = failed("refused", host, f"answered {status}{tail}")
        error.retryable = False
        return Fault(error, again=False, blames=False)
    if "context_length" in _code(body) or "maximum context" in said:
        error = ContextLengthExceeded(f"{host}: {said}")
    elif status >= 500:
        return Fault(failed("broken", host, f"answered {status}{tail}"))
    else:
        error = InvalidRequest(f"{host} refuses the request ({status}){tail}")
    return Fault(error, again=False, elsewhere=False, blames=False)


def of_event(error: Any, host: str, secrets: list[str]) -> Fault:
    """What an error in a stream means."""
    body = json.dumps({"error": error}).encode()
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int):
        return of_status(code, body, host, None, secrets)
    said = _said(body, secrets) or "no reason given"
    return Fault(failed("broken", host, f"gave up: {said}"))


def _error(body: bytes) -> Any:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        return found.get("error", found.get("detail", found.get("message")))
    return None


def _code(body: bytes) -> str:
    error = _error(body)
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def _said(body: bytes, secrets: list[str]) -> str:
    """The remote's own words: one line, short, without markup, without what is secret."""
    error = _error(body)
    if isinstance(error, dict):
        error = error.get("message")
    if isinstance(error, str):
        text = error
    else:
        text = body.decode("utf-8", "replace")
        if "<" in text[:200]:
            text = "a page of HTML"
    for secret in secrets:
        text = text.replace(secret, "***")
    text = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return text[:MAX_SAID_CHARS]
