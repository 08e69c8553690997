"""Rows asked round after round, until each has an outcome: all of them, then those that may pass.

What is kept is the checkpoint: a row with an outcome is never asked again. Knows calls and rows,
nothing of what they are for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llmos.abi.inference import Options
from llmos.abi.program import Answer, Context, Generate, Interrupted, Yielded
from llmos.abi.tasks import Policy
from llmos.errors import (
    DeadlineExceeded,
    ErrorInfo,
    LLMOSError,
    PluginError,
    ShuttingDown,
    from_info,
)
from llmos.programs.task import media, rows
from llmos.programs.task.source import Row
from llmos.programs.task.spending import Spending

PAUSES_S = (0.25, 1.0, 3.0, 10.0, 30.0)
"""Before the next call after the first, second … failure in a row that may pass."""

NAP_S = 0.05
GRAMMAR = "grammar"
"""The parameter that is named where a driver, or the library of grammars, does not take one. That
the library is not installed is a PluginError."""

PERIOD_S = 0.25
LAST_MS = 900_000.0
"""Calls made so shortly before the task expires get what is left as their deadline."""


class Key(NamedTuple):
    """What is kept of a call on its way: the rows it is for, whether the task's end is its, and
    files that are there for it."""

    rows: list[int]
    is_timed: bool
    files: list[str] = []  # noqa: RUF012 - of a tuple, never changed


class Work(Protocol):
    """How rows are asked, `pack` in one call; `needs` are the columns that are read."""

    @property
    def needs(self) -> list[str]: ...

    @property
    def pack(self) -> int: ...

    def piece(self, values: Mapping[str, Any]) -> Any:
        """What is sent of one row. Raises what is wrong with it."""
        ...

    def request(self, pieces: Sequence[Any], options: Options) -> Generate: ...

    def read(self, answer: Answer, num_rows: int) -> list[Any]:
        """For each row its result, or an LLMOSError."""
        ...

    def loosen(self) -> None:
        """From the next call on without a grammar: nobody here can bind an answer by it."""
        ...


class Rounds:
    """Of one attempt, over one source of rows. `streams` are where results and errors are kept,
    `variables` are what `work` sees of a row, `tell` is called now and then."""

    def __init__(
        self,
        ctx: Context,
        policy: Policy,
        work: Work,
        source: Callable[[], Iterator[Row]],
        *,
        variables: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        tell: Callable[[], None],
        streams: tuple[str, str] = (rows.DONE, rows.FAILED),
    ) -> None:
        self._ctx = ctx
        self._policy = policy
        self._work = work
        self._source = source
        self._variables = variables
        self._report = tell
        self._stream_done, self._stream_failed = streams
        self._done = {int(key) for stream, key in ctx.done_keys if stream in streams}
        self._num_failed = sum(stream == streams[1] for stream, _ in ctx.done_keys)
        self._tries: dict[int, int] = {}
        self._again: set[int] = set()
        self._loosened: set[int] = set()
        self._num_failures = 0
        self._resume_s = 0.0
        self._told_s = 0.0
        self._expires_s = math.inf  # by the clock that never jumps
        if policy.expires_at is not None:
            self._expires_s = time.monotonic() + policy.expires_at - time.time()
        self._spending = Spending(policy)

    @property
    def num_done(self) -> int:
        """Rows with an outcome, failures too."""
        return len(self._done)

    @property
    def num_failed(self) -> int:
        return self._num_failed

    def run(self) -> None:
        """Returns when every row has its outcome. Raises Yielded, Interrupted, and what no row can
        be blamed for."""
        if self._done and self._spending.is_bounded:
            for stream in (self._stream_done, self._stream_failed):
                self._spending.recall(rows.read_kept(self._ctx.gather(stream)))
        self._round()
        while self._again:
            self._round()

    def give_way(self) -> None:
        """Raises Interrupted, Yielded when it is to leave."""
        if self._ctx.should_stop:
            raise Interrupted("stopped")
        if self._ctx.should_yield:
            raise Yielded

    def _round(self) -> None:
        self._again, again = set(), self._again
        wanted = (row for row in self._source() if row.number not in self._done)
        if again:
            wanted = (row for row in wanted if row.number in again)
        for key, answer in self._ctx.calls(self._requests(wanted), self._policy.window):
            self._take(key, answer)
        self.give_way()

    def _requests(self, wanted: Iterable[Row]) -> Iterator[tuple[Key, Generate]]:
        """What cannot be asked is an error of its row, here."""
        numbers: list[int] = []
        pieces: list[Any] = []
        for row in wanted:
            if self._ctx.should_yield:
                return
            try:
                if row.error is not None:
                    raise row.error
                pieces.append(self._work.piece(self._variables(row.values)))
                numbers.append(row.number)
            except LLMOSError as error:
                self._fail(row.number, error.to_info())
            if len(pieces) == self._work.pack:
                yield from self._request(numbers, pieces)
                numbers, pieces = [], []
        if pieces and not self._ctx.should_yield:
            yield from self._request(numbers, pieces)

    def _request(self, numbers: list[int], pieces: list[Any]) -> Iterator[tuple[Key, Generate]]:
        """One call, unless there is no time or no budget left for it."""
        self._pause()
        if self._ctx.should_yield:
            return
        try:
            if time.monotonic() >= self._expires_s:
                raise DeadlineExceeded("the task's time was over")
            self._spending.check()
        except LLMOSError as error:
            for number in numbers:
                self._fail(number, error.to_info())
            return
        options, is_timed = self._options()
        request = self._work.request(pieces, options)
        yield Key(numbers, is_timed, media.files_of(request)), request

    def _pause(self) -> None:
        while time.monotonic() < self._resume_s and not self._ctx.should_yield:
            time.sleep(NAP_S)

    def _options(self) -> tuple[Options, bool]:
        """No call outlasts the task. True: its deadline is the task's."""
        wished_ms = math.inf if self._policy.timeout_s is None else self._policy.timeout_s * 1000
        left_ms = (self._expires_s - time.monotonic()) * 1000
        is_timed = left_ms < min(wished_ms, LAST_MS)
        limit_ms = left_ms if is_timed else wished_ms
        deadline_ms = None if limit_ms == math.inf else max(1, math.ceil(limit_ms))
        return Options(deadline_ms=deadline_ms), is_timed

    def _take(self, key: Key, answer: Answer) -> None:
        media.remove(key.files)
        if answer.error is not None:
            self._take_error(key, answer.error, answer)
            return
        self._num_failures = 0
        prices = self._policy.prices
        self._spending.add(answer.usage, rows.cost_of(answer, prices))
        share = len(key.rows)
        for number, value in zip(key.rows, self._work.read(answer, share), strict=True):
            if isinstance(value, LLMOSError):
                alone = Key([number], key.is_timed)
                self._take_error(alone, value.to_info(), answer, share)
            else:
                self._keep(self._stream_done, rows.done(number, value, answer, prices, share))

    def _take_error(self, key: Key, error: ErrorInfo, answer: Answer, share: int = 1) -> None:
        """One that may pass is tried again, later the more there were in a row."""
        if error.code == ShuttingDown.code:
            raise from_info(error)  # the server's end is no input's fault
        is_unbound = error.param == GRAMMAR or error.code == PluginError.code
        if is_unbound and self._loosened.isdisjoint(key.rows):
            self._work.loosen()
            self._loosened.update(key.rows)
            self._again.update(key.rows)
            return
        may_pass = error.retryable and not key.is_timed
        for number in key.rows:
            tries = self._tries.get(number, 0)
            if may_pass and tries < self._policy.retries:
                self._tries[number] = tries + 1
                self._again.add(number)
            else:
                self._fail(number, error, answer, share)
        if may_pass and self._resume_s <= time.monotonic():
            pause_s = PAUSES_S[min(self._num_failures, len(PAUSES_S) - 1)]
            self._num_failures += 1
            wish_s = min(error.retry_after_s or 0.0, PAUSES_S[-1])
            self._resume_s = time.monotonic() + max(pause_s, wish_s)

    # outcomes

    def _fail(
        self, row: int, error: ErrorInfo, answer: Answer | None = None, share: int = 1
    ) -> None:
        self._num_failed += 1
        self._keep(self._stream_failed, rows.failed(row, error, answer, self._policy.prices, share))

    def _keep(self, stream: str, kept: rows.Kept) -> None:
        self._ctx.result(stream, str(kept.row), kept.row, rows.encode(kept))
        self._done.add(kept.row)
        if time.monotonic() - self._told_s > PERIOD_S:
            self._told_s = time.monotonic()
            self._report()
