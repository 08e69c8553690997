"""The program `batch`: check the file, then run every line that has no answer yet."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec

from llmos.abi.program import Answer, Context, Generate, Interrupted, Yielded
from llmos.errors import (
    DeadlineExceeded,
    ErrorInfo,
    InvalidRequest,
    LLMOSError,
    ShuttingDown,
    from_info,
)
from llmos.programs.batch import rows
from llmos.programs.batch.check import MAX_LINES, check_file
from llmos.programs.batch.lines import Line, read_lines
from llmos.shapes import strict_json
from llmos.shapes.calls import URLS, answer_body, infer_of, remembered

INPUT = "input"
"""The name of the job's one file."""

MAX_VAIN_ROUNDS = 5
"""Rounds over lines that failed for what may pass, without one success, until they have failed."""

PAUSES_S = (0.25, 1.0, 3.0, 10.0, 30.0)
"""Before the next call after the first, second … failure in a row of that kind."""

NAP_S = 0.05
PROGRESS_PERIOD_S = 0.25
LONG_CHECK_S = 2.0
"""A check that took longer is remembered in a checkpoint."""

LAST_S = 900.0
"""Calls made so shortly before the batch expires get what is left as their deadline."""


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`expires_at`: UTC seconds; what is not answered by then fails with `batch_expired`.
    `completion_window` is the client's word for it, kept for the client."""

    endpoint: str
    window: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 128
    expires_at: float | None = None
    completion_window: str = ""


class Key(NamedTuple):
    """What is kept of a line while its call is on its way."""

    number: int
    offset: int
    custom_id: str
    asked: dict[str, Any]
    is_timed: bool


@dataclass(slots=True)
class Counts:
    """OpenAI's `request_counts`."""

    total: int
    completed: int
    failed: int

    def to_dict(self) -> dict[str, int]:
        return {"total": self.total, "completed": self.completed, "failed": self.failed}


class BatchProgram:
    """Behind `abi.Program`. Its results are its checkpoint: what has one is never asked again."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """The outputs: `status` (completed, expired, cancelled), `request_counts`, and `model`
        where this attempt was answered by one only.

        Raises BadFile for a file that is refused, InvalidRequest for the job's inputs.
        """
        try:
            inputs = msgspec.convert(dict(ctx.inputs), Inputs)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"batch: {error}", param="inputs") from None
        if inputs.endpoint not in URLS:
            text = f"'endpoint' is not one of {', '.join(URLS)}"
            raise InvalidRequest(text, param="inputs.endpoint")
        if INPUT not in ctx.files:
            raise InvalidRequest(f"a batch reads the file {INPUT!r}", param="files")
        total = _num_lines(ctx, inputs)
        if total < 0:
            return _outputs("cancelled", Counts(0, 0, 0))
        return _Run(ctx, inputs, total).run()


def _num_lines(ctx: Context, inputs: Inputs) -> int:
    """Of a file that is in order; -1 when told to stop. Raises BadFile."""
    if ctx.resumed_from is not None:
        return int(msgspec.json.decode(Path(ctx.resumed_from).read_bytes(), type=int))
    began_s = time.monotonic()
    last_s = began_s

    def look(done: int, size: int) -> bool:
        nonlocal last_s
        if ctx.should_stop:
            return False
        if ctx.should_yield:
            raise Yielded
        if time.monotonic() - last_s > PROGRESS_PERIOD_S:
            last_s = time.monotonic()
            ctx.progress(done, size, "bytes", "validating")
        return True

    ctx.progress(0, 0, "bytes", "validating")
    total = check_file(ctx.files[INPUT], inputs.endpoint, look)
    if time.monotonic() - began_s > LONG_CHECK_S:
        path = Path(ctx.scratch) / "checked.json"
        path.write_bytes(msgspec.json.encode(total))
        ctx.checkpoint(str(path))
    return total


class _Run:
    """Pass 2 of one attempt."""

    def __init__(self, ctx: Context, inputs: Inputs, total: int) -> None:
        self._ctx = ctx
        self._endpoint = inputs.endpoint
        self._window = inputs.window
        self._done = bytearray(MAX_LINES + 1)
        for _, key in ctx.done_keys:
            self._done[int(key)] = 1
        outputs = sum(stream == rows.OUTPUT for stream, _ in ctx.done_keys)
        self._counts = Counts(total, outputs, len(ctx.done_keys) - outputs)
        self._num_expired = 0
        self._models: set[str] = set()
        self._again: list[tuple[int, int]] = []
        self._num_failures = 0
        self._resume_s = 0.0
        self._told_s = 0.0
        self._expires_s = math.inf  # by the clock that never jumps
        if inputs.expires_at is not None:
            self._expires_s = time.monotonic() + inputs.expires_at - time.time()
        self._was_late = self._is_expired

    def run(self) -> Mapping[str, Any]:
        """Round after round: the whole file, then what failed for reasons that may pass."""
        with Path(self._ctx.files[INPUT]).open("rb") as file:
            try:
                self._rounds(file)
                self._tell("finalizing")
            except Interrupted:
                if not self._is_expired:
                    return self._outputs()
            if self._is_expired:
                self._expire(file)
        return self._outputs()

    def _outputs(self) -> dict[str, Any]:
        counts = self._counts
        left = counts.total - counts.completed - counts.failed
        is_expired = self._num_expired or (self._was_late and counts.failed)
        ended = "expired" if is_expired else "completed"
        outputs = _outputs("cancelled" if left else ended, counts)
        return outputs | ({"model": min(self._models)} if len(self._models) == 1 else {})

    # rounds

    def _rounds(self, file: BinaryIO) -> None:
        self._round(read_lines(file), is_last=False)
        num_vain = 1
        while self._again and not self._is_expired:
            again, self._again = self._again, []
            completed = self._counts.completed
            self._round(_lines_at(file, again), is_last=num_vain >= MAX_VAIN_ROUNDS)
            num_vain = num_vain + 1 if completed == self._counts.completed else 1

    def _round(self, lines: Iterable[Line], is_last: bool) -> None:
        for key, answer in self._ctx.calls(self._requests(lines), self._window):
            if answer.error is None:
                self._num_failures = 0
                self._keep(key, answer)
            elif key.is_timed and answer.error.code == DeadlineExceeded.code:
                self._put_expired(key.number, key.custom_id)
            elif self._may_pass(answer.error) and not is_last:
                self._again.append((key.number, key.offset))
            else:
                self._refuse(key.number, key.custom_id, answer.error, answer.request_id)
        self._check_way()

    def _may_pass(self, error: ErrorInfo) -> bool:
        """Then the next call is put off, the longer the more there were in a row."""
        if error.code == ShuttingDown.code:
            raise from_info(error)  # the server's end is no line's fault
        if error.retryable and self._resume_s <= time.monotonic():
            pause_s = PAUSES_S[min(self._num_failures, len(PAUSES_S) - 1)]
            self._num_failures += 1
            wish_s = min(error.retry_after_s or 0.0, PAUSES_S[-1])
            self._resume_s = time.monotonic() + max(pause_s, wish_s)
        return error.retryable

    def _requests(self, lines: Iterable[Line]) -> Iterator[tuple[Key, Generate]]:
        """Of the lines without a result. What a line asks for wrongly is its result, here."""
        for line in lines:
            if line.raw == b"" or self._done[line.number]:
                continue
            while time.monotonic() < self._resume_s and self._goes_on:
                time.sleep(NAP_S)
            if not self._goes_on:
                return
            try:
                yield self._request(line)
            except LLMOSError as error:
                self._refuse(line.number, _custom_id(line), error.to_info(), "")

    def _request(self, line: Line) -> tuple[Key, Generate]:
        request = strict_json.parse_object(line.raw or b"")
        body = request["body"]
        generate = infer_of(request["url"], body)
        left_ms = (self._expires_s - time.monotonic()) * 1000
        is_timed = left_ms < min(generate.options.deadline_ms or math.inf, LAST_S * 1000)
        if is_timed:  # so that no call outlasts the batch
            options = msgspec.structs.replace(
                generate.options, deadline_ms=max(1, math.ceil(left_ms))
            )
            generate = msgspec.structs.replace(generate, options=options)
        asked = remembered(request["url"], body)
        return Key(line.number, line.offset, request["custom_id"], asked, is_timed), generate

    @property
    def _is_expired(self) -> bool:
        return time.monotonic() >= self._expires_s

    @property
    def _goes_on(self) -> bool:
        return not (self._is_expired or self._ctx.should_yield)

    def _check_way(self) -> None:
        """After the calls under way have ended: go, when that is asked for."""
        if self._ctx.should_stop:
            raise Interrupted("stopped")
        if self._ctx.should_yield:
            raise Yielded

    # results

    def _keep(self, key: Key, answer: Answer) -> None:
        body = answer_body(self._endpoint, key.asked, answer)
        row = rows.row_id(self._ctx.job_id, key.number)
        encoded = rows.answered(row, key.custom_id, answer.request_id, body)
        self._counts.completed += 1
        if len(self._models) < 2:
            self._models.add(answer.model)
        self._put(rows.OUTPUT, key.number, encoded)

    def _refuse(self, number: int, custom_id: str, error: ErrorInfo, request_id: str) -> None:
        row = rows.row_id(self._ctx.job_id, number)
        self._counts.failed += 1
        self._put(rows.ERROR, number, rows.refused(row, custom_id, request_id, error))

    def _put_expired(self, number: int, custom_id: str) -> None:
        row = rows.row_id(self._ctx.job_id, number)
        self._counts.failed += 1
        self._num_expired += 1
        self._put(rows.ERROR, number, rows.expired(row, custom_id))

    def _expire(self, file: BinaryIO) -> None:
        """Every line that is left gets its error."""
        file.seek(0)
        for line in read_lines(file):
            if line.raw != b"" and not self._done[line.number]:
                self._put_expired(line.number, _custom_id(line))

    def _put(self, stream: str, number: int, body: bytes) -> None:
        self._ctx.result(stream, str(number), number, body)
        self._done[number] = 1
        if time.monotonic() - self._told_s > PROGRESS_PERIOD_S:
            self._tell("in_progress")

    def _tell(self, phase: str) -> None:
        if self._ctx.should_stop:  # what is put away now is told by the outputs
            return
        self._told_s = time.monotonic()
        counts = self._counts
        done = counts.completed + counts.failed
        self._ctx.progress(done, counts.total, "requests", phase, counts.to_dict())


def _lines_at(file: BinaryIO, places: list[tuple[int, int]]) -> Iterator[Line]:
    """Lines by (number, offset)."""
    for number, offset in places:
        file.seek(offset)
        yield next(read_lines(file, number))


def _custom_id(line: Line) -> str:
    """Of a line that passed the check."""
    return str(msgspec.json.decode(line.raw or b"{}")["custom_id"])


def _outputs(status: str, counts: Counts) -> dict[str, Any]:
    return {"status": status, "request_counts": counts.to_dict()}
