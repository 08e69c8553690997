"""Guesses from a smaller model of the same vocabulary, with pages of its own.

It draws each token as the model will: with the same parameters and the same uniform number. So
they agree as often as their distributions let them, also where tokens are sampled (arXiv:2302.01318
accepts by chance instead; here a guess counts when it is what the model draws, nothing else).

How many tokens to guess is what pays: the depth that brings most tokens per second, by how often
guesses of these requests were right and by how long steps were seen to take. Zero is one of them.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from array import array
from collections.abc import Callable, Sequence

from llmos.abi.driver import DRAFTED_REQUESTS
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.fused import binding
from llmos.drivers.native.fused.drawing import GREEDY, drawing
from llmos.drivers.native.fused.engine import Engine, Piece
from llmos.drivers.native.fused.guessing import Ask, Hope, Patience, Speeds
from llmos.drivers.native.fused.residence import Residence
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.paging import Lease, Pages
from llmos.drivers.native.request import Request
from llmos.errors import EngineFailed, LoadFailed

_log = logging.getLogger(__name__)

_WARM_UPS = 3

_AT_LEAST = 1.1
"""Guesses have to bring so much more than none: what they take is only known roughly."""


@dataclasses.dataclass(slots=True, eq=False)
class _Reader:
    """How far one request was read: `num_read` tokens, and after them guessed ones, `ahead`."""

    request: Request
    hope: Hope
    lease: Lease | None = None
    table: array[int] = dataclasses.field(default_factory=lambda: array("i"))
    num_read: int = 0
    ahead: list[int] = dataclasses.field(default_factory=list)

    @property
    def num_known(self) -> int:
        return len(self.request.prompt) + len(self.request.generated)

    def unread(self) -> list[int]:
        """Known tokens that come next, at least the last one; right guesses count as read."""
        begin, num_prompt = self.num_read, len(self.request.prompt)
        if begin >= num_prompt:
            tail = self.request.generated[begin - num_prompt :]
        else:
            tail = self.request.prompt[begin:] + self.request.generated
        num_right = 0
        for guessed, known in zip(self.ahead, tail[:-1], strict=False):
            if guessed != known:
                break
            num_right += 1
        self.ahead.clear()
        self.num_read += num_right
        return tail[num_right:]


class Draft:
    """`Guesser`. Its guesses are of tokens below `vocab_size`, as the model's are."""

    def __init__(
        self,
        residence: Residence,
        open_engine: Callable[[], Engine],
        *,
        vocab_size: int,
        context_length: int,
    ) -> None:
        self.residence = residence
        self._open_engine = open_engine
        self._engine: Engine | None = open_engine()
        self.scratch_bytes = self._engine.scratch_bytes
        self._pages = Pages(self._engine.num_pages, binding.PAGE_TOKENS)
        self._vocab_size = min(vocab_size, self._engine.vocab_size)
        self._context_length = context_length
        self._readers: dict[str, _Reader] = {}
        self._token_s = 0.0
        self._others = Hope()
        self._patience = Patience()
        self._is_resting = False
        self._num_touched = 0
        self._warm_up(self._engine)

    def _warm_up(self, engine: Engine) -> None:
        """See how long a token takes. Raises LoadFailed: it cannot be run. Leaves no trace."""
        lease = self._pages.open("", [0], 1)
        assert lease is not None
        lease.grow(1)
        self._num_touched = 1 + max(lease.pages)
        piece = Piece(array("i", lease.pages), 0, [0], 1)
        try:
            with mapped():
                for _ in range(_WARM_UPS):
                    began = time.perf_counter()
                    engine.draw(engine.forward([piece]), [GREEDY])
                    self._token_s = time.perf_counter() - began
        except EngineFailed as error:
            raise LoadFailed(f"the draft model cannot be run: {error.message}") from error
        self._pages.close(lease, poisoned=True)

    # `Guesser`

    def guess(self, asks: Sequence[Ask], room: int, speeds: Speeds) -> list[list[int]]:
        """For those whose pages have room; who is far behind reads on first. Never raises."""
        if any(ask.request.request_id not in self._readers for ask in asks):
            self._is_resting = False  # who is new may be guessed more easily
        if self._engine is None or (self._is_resting and not self._patience.tries()):
            return [[] for _ in asks]
        is_due, guesses = self._is_resting, dict[str, list[int]]()
        tried = [(ask, self._reader(ask.request)) for ask in asks]
        tried = [(ask, reader) for ask, reader in tried if is_due or reader.hope.tries()]
        depth = self._depth([reader for _, reader in tried], room, speeds, is_due=is_due)
        if depth:
            wanted = self._open([(reader, min(depth, ask.count)) for ask, reader in tried])
            try:
                guesses = self._run(self._engine, wanted)
            except EngineFailed as error:
                _log.warning("the draft model failed, and guesses no more: %s", error)
                self._give_up()
        return [guesses.get(ask.request.request_id, []) for ask in asks]

    def note(self, request: Request, num_guessed: int, num_right: int) -> None:
        """See `Guesser`."""
        self._reader(request).hope.note(num_guessed, num_right)
        self._others.note(num_guessed, num_right)

    def forget(self, request: Request) -> None:
        """What was read of it stays cached, for whoever begins alike."""
        reader = self._readers.pop(request.request_id, None)
        if reader is not None:
            self._close(reader)

    def _reader(self, request: Request) -> _Reader:
        found = self._readers.get(request.request_id)
        if found is None:
            found = self._readers[request.request_id] = _Reader(request, Hope(self._others.rate))
        return found

    # how many

    def _depth(self, readers: list[_Reader], room: int, speeds: Speeds, *, is_due: bool) -> int:
        """Tokens to guess for each. Where none pays, a rest; after it (`is_due`) one token, to see
        whether it does now."""
        most = min(LIMITS.draft_tokens, room // max(1, len(readers)))
        if most < 1:
            return 0
        num_others = LIMITS.draft_rows - room
        best = 0
        if readers:
            best = max(
                range(most + 1), key=lambda depth: self._worth(readers, depth, num_others, speeds)
            )
        self._is_resting = not best
        if best:
            self._patience.reset()
            return best
        return int(is_due or any(reader.hope.is_low for reader in readers))

    def _worth(
        self, readers: list[_Reader], depth: int, num_rows: int, speeds: Speeds
    ) -> tuple[float, int]:
        """Tokens per second; where nothing is known yet, the more guesses the better."""
        step_s = speeds.expected_s(num_rows + depth * len(readers))
        if step_s is None or not self._token_s:
            return 0.0, depth
        num_others = num_rows - len(readers)
        num_tokens = num_others + sum(reader.hope.expected(depth) for reader in readers)
        worth = num_tokens / (step_s + depth * self._token_s)
        return (worth if depth else _AT_LEAST * worth), -depth

    # pages

    def _open(self, wanted: list[tuple[_Reader, int]]) -> list[tuple[_Reader, int]]:
        """Those that have pages and are within the context, with as many tokens as fit there."""
        fitting = []
        for reader, count in wanted:
            room = self._context_length - reader.num_known
            if room > 0 and self._lease(reader, [reader for reader, _ in wanted]):
                fitting.append((reader, min(count, room)))
        return fitting

    def _lease(self, reader: _Reader, kept: list[_Reader]) -> bool:
        if reader.lease is not None:
            return True
        request = reader.request
        most = min(len(request.prompt) + request.max_new, self._context_length)
        known = request.known(reader.num_known)
        lease = self._pages.open(request.item.cache_salt, known, most)
        if lease is None:
            # somebody who is not guessed for now makes room
            idle = [r for r in self._readers.values() if r.lease is not None and r not in kept]
            for other in idle:
                self._close(other)
                lease = self._pages.open(request.item.cache_salt, known, most)
                if lease is not None:
                    break
        if lease is None:
            return False
        reader.lease, reader.num_read = lease, lease.num_cached
        reader.table = array("i", lease.pages)
        return True

    def _close(self, reader: _Reader, *, poisoned: bool = False) -> None:
        if reader.lease is not None:
            reader.unread()
            tokens = [] if poisoned else reader.request.known(reader.num_read)
            self._pages.close(reader.lease, tokens, poisoned=poisoned)
        reader.lease, reader.num_read = None, 0
        reader.ahead.clear()

    def _give_up(self) -> None:
        for reader in self._readers.values():
            self._close(reader, poisoned=True)
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    # work

    def _run(self, engine: Engine, wanted: list[tuple[_Reader, int]]) -> dict[str, list[int]]:
        """Raises EngineFailed."""
        began, budget, was_behind = time.perf_counter(), LIMITS.draft_read_tokens, False
        pieces: list[tuple[_Reader, Piece]] = []
        counts: dict[_Reader, int] = {}
        for reader, count in wanted:
            unread = reader.unread()
            tokens = unread[:budget]
            if not tokens:
                continue
            budget -= len(tokens)
            was_behind = was_behind or len(tokens) > 1 + LIMITS.draft_tokens
            ends = len(tokens) == len(unread)
            if ends:
                counts[reader] = count
            pieces.append((reader, self._piece(reader, reader.num_read, tokens, wanted=ends)))
            reader.num_read += len(tokens)
        guessed: dict[_Reader, list[int]] = {reader: [] for reader in counts}
        while pieces:
            drawn = self._draw(engine, pieces, guessed)
            pieces = [
                (reader, self._next(reader, token))
                for reader, token in drawn.items()
                if len(guessed[reader]) < counts[reader]
            ]
        depth = max((len(tokens) for tokens in guessed.values()), default=0)
        if depth and not was_behind:
            now = (time.perf_counter() - began) / depth
            self._token_s = now if not self._token_s else 0.8 * self._token_s + 0.2 * now
        return {reader.request.request_id: tokens for reader, tokens in guessed.items()}

    def _piece(self, reader: _Reader, start: int, tokens: list[int], *, wanted: bool) -> Piece:
        assert reader.lease is not None
        added = reader.lease.grow(start + len(tokens))
        if added:
            self._num_touched = max(self._num_touched, 1 + max(added))
            reader.table.extend(added)
        return Piece(reader.table, start, tokens, int(wanted))

    def _next(self, reader: _Reader, token: int) -> Piece:
        """Read what was guessed."""
        piece = self._piece(reader, reader.num_read + len(reader.ahead), [token], wanted=True)
        reader.ahead.append(token)
        return piece

    def _draw(
        self, engine: Engine, pieces: list[tuple[_Reader, Piece]], guessed: dict[_Reader, list[int]]
    ) -> dict[_Reader, int]:
        """Read the pieces and put what is drawn after them behind what was; with what to go on."""
        readers = [reader for reader, piece in pieces if piece.num_wanted]
        with mapped():
            logits = engine.forward([piece for _, piece in pieces])
            drawings = [
                drawing(r.request.sampler, len(r.request.generated) + len(guessed[r]))
                for r in readers
            ]
            tokens = engine.draw(logits, drawings) if drawings else []
        going_on = {}
        for reader, token in zip(readers, tokens, strict=True):
            if token is not None and token < self._vocab_size:
                guessed[reader].append(token)
                going_on[reader] = token
        return going_on

    # memory

    @property
    def allocated_bytes(self) -> int:
        """Of all pages."""
        return 0 if self._engine is None else self._engine.kv_bytes

    @property
    def touched_bytes(self) -> int:
        """Of pages that were written to, some time."""
        return 0 if self._engine is None else self._num_touched * self._engine.page_bytes

    @property
    def used_bytes(self) -> int:
        """Of pages that requests hold."""
        return 0 if self._engine is None else self._pages.num_used * self._engine.page_bytes

    @property
    def cached_bytes(self) -> int:
        """Of pages of nobody that a prompt may find."""
        return 0 if self._engine is None else self._pages.num_evictable * self._engine.page_bytes

    def park(self) -> None:
        """Without pages and weights; no request is here."""
        self.close()
        self._pages.clear()
        self._num_touched = 0
        self.residence.park()

    def unpark(self) -> None:
        """Raises LoadFailed."""
        self.residence.unpark()
        self._engine = self._open_engine()

    def close(self) -> None:
        """Give back threads and pages. Idempotent."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None


def pages_of(num_slots: int, context_length: int) -> int:
    """As many as so many requests, guessed for at once, can come to need."""
    return min(num_slots, DRAFTED_REQUESTS) * -(-context_length // binding.PAGE_TOKENS)
