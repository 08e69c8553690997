"""A chat as it is kept in the browser's tab, so that a reload or another page does not lose it.

It never lies on the server: it goes with the tab, and with logging out. What comes back from a
browser is anybody's, so it is read as strictly as a request; images are not kept.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from llmos.sdk.answer import Answer

STORED_AS = "llmos_chat"
MAX_TURNS = 200


class KeptCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call of a tool."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Turn(msgspec.Struct, omit_defaults=True):
    """What was said and answered. `facts` is how fast it came; `problem` what ended it."""

    words: str = ""
    text: str = ""
    model: str = ""
    facts: str = ""
    request_id: str = ""
    problem: str = ""
    calls: list[KeptCall] = []
    has_image: bool = False

    def keep(self, answer: Answer, facts: str, problem: str = "") -> None:
        """The answer, as far as it came."""
        self.text, self.facts, self.problem = answer.text, facts, problem
        self.request_id = answer.request_id
        self.calls = [
            KeptCall(call.id, call.name, call.arguments) for _, call in sorted(answer.calls.items())
        ]

    def messages(self) -> list[dict[str, Any]]:
        """As the conversation goes on with it: what was not answered is no part of it, nor is an
        image without words."""
        if not (self.words and (self.text or self.calls)):
            return []
        said: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            said["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.calls
            ]
        return [{"role": "user", "content": self.words}, said]

    @property
    def size(self) -> int:
        """Characters, about."""
        arguments = sum(len(call.arguments) + len(call.name) for call in self.calls)
        return len(self.words) + len(self.text) + len(self.problem) + arguments


class Side(msgspec.Struct):
    """One model's side of the page."""

    model: str
    turns: list[Turn] = []


class Transcript(msgspec.Struct):
    """The page: one side, or two of which the second is shown while they are compared."""

    owner: str
    sides: list[Side]
    compared: bool = False


def owner_of(key: str) -> str:
    """Whose chat it is, in a word that tells nothing of the key."""
    return hashlib.sha256(b"llmos console chat\0" + key.encode()).hexdigest()[:32]


def newest(turns: list[Turn], max_chars: int) -> list[Turn]:
    """The last ones that fit, in their order."""
    kept: list[Turn] = []
    for turn in reversed(turns[-MAX_TURNS:]):
        max_chars -= turn.size
        if max_chars < 0:
            break
        kept.append(turn)
    return kept[::-1]


def pack(transcript: Transcript, max_chars: int) -> str:
    """For the browser: the oldest turns go where there are too many."""
    share = max_chars // max(1, len(transcript.sides))
    sides = [Side(side.model, newest(side.turns, share)) for side in transcript.sides]
    return msgspec.json.encode(msgspec.structs.replace(transcript, sides=sides)).decode()


def unpack(text: object, owner: str, max_chars: int) -> Transcript | None:
    """What a browser kept, if it is this owner's and can be read."""
    if not isinstance(text, str):
        return None
    try:
        found = msgspec.json.decode(text, type=Transcript)
    except msgspec.DecodeError:
        return None
    if found.owner != owner or not 1 <= len(found.sides) <= 2:
        return None
    share = max_chars // len(found.sides)
    found.sides = [Side(side.model, newest(side.turns, share)) for side in found.sides]
    return found
