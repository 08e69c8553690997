"""Stop strings: text leaves only once it cannot be the beginning of one."""

from __future__ import annotations


class StopStrings:
    """Passes a stream of text on, up to the earliest stop string, which is not passed on.

    What may still become a stop string is withheld: at most the longest one's length less one.
    """

    def __init__(self, stops: list[str], withheld: str = "") -> None:
        self._stops = [stop for stop in stops if stop]
        self._withheld = withheld
        self.matched: str | None = None

    @property
    def withheld(self) -> str:
        """All the state there is before a match: with it another one goes on."""
        return self._withheld

    def push(self, text: str) -> str:
        """The text that may leave now. After a match `matched` is set and nothing leaves."""
        if not self._stops:
            return text
        if self.matched is not None:
            return ""
        text = self._withheld + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # the one that was complete first; of those, the longest
            at, self.matched = min(found, key=lambda match: (match[0] + len(match[1]), match[0]))
            self._withheld = ""
            return text[:at]
        kept = max(self._overlap(text, stop) for stop in self._stops)
        self._withheld = text[len(text) - kept :]
        return text[: len(text) - kept]

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of `text` that is a beginning of `stop`."""
        for length in range(min(len(text), len(stop) - 1), 0, -1):
            if stop.startswith(text[-length:]):
                return length
        return 0

    def flush(self) -> str:
        """The end of the stream: what was withheld for nothing."""
        text, self._withheld = self._withheld, ""
        return "" if self.matched is not None else text
