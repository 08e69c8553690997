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
MAX_PACKET_BYTES = 900_000
"""What a browser sends at once: a message of engine.io may have 1,000,000 characters."""


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
        """Characters."""
        called = sum(len(call.id) + len(call.name) + len(call.arguments) for call in self.calls)
        said = len(self.words) + len(self.text) + len(self.problem)
        return said + called + len(self.model) + len(self.facts) + len(self.request_id)


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
    """The last ones that fit, in their order; one that alone is too large is left out."""
    kept: list[Turn] = []
    room = max_chars
    for turn in reversed(turns[-MAX_TURNS:]):
        if turn.size > max_chars:
            continue
        room -= turn.size
        if room < 0:
            break
        kept.append(turn)
    return kept[::-1]


def shared(sides: list[Side], max_chars: int) -> list[Side]:
    """Each with the turns that fit into its part: what one side does not need the other may use."""
    needs = [sum(turn.size for turn in side.turns[-MAX_TURNS:]) for side in sides]
    parts = [0] * len(sides)
    order = sorted(range(len(sides)), key=needs.__getitem__)
    for num_left, place in zip(range(len(sides), 0, -1), order, strict=False):
        parts[place] = min(needs[place], max_chars // num_left)
        max_chars -= parts[place]
    return [
        Side(side.model, newest(side.turns, part)) for side, part in zip(sides, parts, strict=True)
    ]


def pack(transcript: Transcript, max_chars: int) -> str:
    """For the browser, which can send it back: the oldest turns go where there are too many."""
    while True:
        sides = shared(transcript.sides, max_chars)
        text = msgspec.json.encode(msgspec.structs.replace(transcript, sides=sides)).decode()
        size_bytes = len(msgspec.json.encode(text))  # as it is sent: a text, escaped once more
        if size_bytes <= MAX_PACKET_BYTES or not max_chars:
            return text
        max_chars = max_chars * 9 * MAX_PACKET_BYTES // (10 * size_bytes)


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
    found.sides = shared(found.sides, max_chars)
    return found
