"""What is really so of the requests on one machine, whatever its core believes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from llmos.kernel.sim.calls import Call
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.worker import Row


@dataclass(frozen=True, slots=True)
class File:
    """A snapshot: prompt tokens that it still has to read, answer tokens still to make."""

    prompt_left: int
    output_left: int


class Truth:
    """Calls that are open, the tokens their readers have, and their snapshots."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.files: dict[str, File] = {}
        self._written: dict[str, File] = {}
        self._made: Counter[str] = Counter()
        self._has_run: set[str] = set()

    def output(self, request_id: str) -> int:
        """How long its answer will be."""
        call = self.calls[request_id]
        return min(call.output_tokens, call.max_tokens or call.output_tokens)

    def context(self, request_id: str) -> int:
        """Tokens of which there are keys and values, at most."""
        return self.calls[request_id].prompt_tokens + self._made[request_id]

    def made(self, request_id: str, num_tokens: int) -> None:
        """Its reader will get these, once."""
        if request_id in self.calls:
            self._made[request_id] += num_tokens
            demand(self._made[request_id] <= self.output(request_id), "tokens were said twice")

    def finished(self, request_id: str) -> None:
        """By its worker."""
        if request_id in self.calls:
            is_whole = self._made[request_id] == self.output(request_id)
            demand(is_whole, "it ended without all of its tokens")

    def work(self, request_id: str, *, resumes: bool) -> File:
        """What a worker that gets it has to do: all of it, the rest, or its context anew first."""
        demand(resumes == (request_id in self._has_run), "begun twice, or resumed before it began")
        self._has_run.add(request_id)
        left = self.output(request_id) - self._made[request_id]
        file = self.files.get(request_id)
        if file is None:
            return File(self.context(request_id), left)
        demand(file.output_left == left, "it goes on where it was not")
        return file

    def put_away(self, row: Row) -> None:
        """Into a file, of which the core will hear."""
        self._written[row.request_id] = File(row.prompt_left, row.output_left)

    def heard(self, request_id: str) -> None:
        """The core knows of the file, which takes the place of any older."""
        if (file := self._written.pop(request_id, None)) is not None and request_id in self.calls:
            self.files[request_id] = file

    def drop(self, request_id: str) -> None:
        """The core says so."""
        demand(request_id in self.files, "a snapshot dropped that there is not")
        del self.files[request_id]

    def close(self, request_id: str) -> None:
        """Nobody asks any more."""
        self.calls.pop(request_id, None)
        self.files.pop(request_id, None)
        self._written.pop(request_id, None)
        self._has_run.discard(request_id)
        del self._made[request_id]
