"""What the browser's tab has of a chat: read once, then written over.

It does not know NiceGUI: `run` is how a script runs in the browser. Nothing is written before what
is there has been read, for it would be lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from llmos.console.views.transcript import (
    MAX_PACKET_BYTES,
    STORED_AS,
    Side,
    Transcript,
    pack,
    unpack,
)

READ_S = 15.0
"""A browser that is slow, or far away, has answered after this, in seconds."""
UNREADABLE = "?"
"""What the browser answers for more than it may send."""

_READ = f"""try {{
  const kept = sessionStorage.getItem('{STORED_AS}') ?? '';
  return JSON.stringify(kept).length > {MAX_PACKET_BYTES} ? '{UNREADABLE}' : kept;
}} catch (error) {{ return '' }}"""
_FORGET = f"try {{ sessionStorage.removeItem('{STORED_AS}') }} catch (error) {{}}"

Run = Callable[[str, float], Awaitable[Any]]
"""A script and how long it may take, in seconds. What it returns is sent whether it is awaited or
not; awaited it gives the script's result, None if the page is gone, or raises TimeoutError."""


class Tab:
    """`max_chars` 0: nothing is kept. A browser that lets nobody keep anything is no reason to
    fail."""

    def __init__(self, run: Run, owner: str, max_chars: int) -> None:
        self._run = run
        self._owner = owner
        self._max_chars = max_chars
        self._is_asked = asyncio.Event()
        self._may_write = False
        if not max_chars:
            self._is_asked.set()

    async def read(self) -> Transcript | None:
        """What it has of this owner's; what is another's, or none that can be read, is removed."""
        try:
            text = await self._run(_READ, READ_S)
        except TimeoutError:  # it may have something yet, which stays
            return None
        finally:
            self._is_asked.set()
        if self._may_write or text is None:
            return None
        self._may_write = True
        kept = unpack(text, self._owner, self._max_chars)
        if kept is None and text:
            self._run(_FORGET, READ_S)
        return kept

    async def asked(self) -> None:
        """Until it has been read, or has not answered."""
        await self._is_asked.wait()

    def write(self, sides: list[Side], *, compared: bool) -> None:
        """Keep this."""
        if self._may_write and self._max_chars:
            text = json.dumps(pack(Transcript(self._owner, sides, compared), self._max_chars))
            self._run(
                f"try {{ sessionStorage.setItem('{STORED_AS}', {text}) }} catch (error) {{}}",
                READ_S,
            )

    def renew(self) -> None:
        """What is there is wanted no more, whatever it is."""
        self._may_write = True
