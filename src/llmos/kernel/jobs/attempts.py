"""Attempts: a program in its worker, or a durable call, from its begin to its last word."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.jobs import Attempt
from llmos.abi.program import Answer, Generate
from llmos.errors import ErrorInfo, InvalidRequest, LLMOSError, WorkerError, WorkerLost
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import Outcome
from llmos.kernel.jobs.config import JobsConfig
from llmos.kernel.jobs.desk import Desk
from llmos.kernel.jobs.disk import PASSING, Disk
from llmos.kernel.jobs.entry import Entry
from llmos.kernel.jobs.hub import Hub
from llmos.kernel.jobs.teller import Teller
from llmos.kernel.jobs.writer import Writer
from llmos.kernel.workers import Workers

if TYPE_CHECKING:
    from llmos.kernel.jobs.services import JobServices

LOST = WorkerLost("the attempt is not the job's any more")


class Attempts:
    """Implements `workers.Programs`. What an attempt came to is posted once its worker is gone."""

    def __init__(
        self,
        services: JobServices,
        *,
        entries: dict[str, Entry],
        disk: Disk,
        post: Callable[[ev.CoreEvent], None],
        workers: Workers,
        config: JobsConfig,
        hub: Hub,
    ) -> None:
        self._services = services
        self._entries = entries
        self._disk = disk
        self._post = post
        self._workers = workers
        self._config = config
        self._hub = hub
        self._takers: dict[type, Callable[[Entry, Any], None]] = {
            msg.Told: self._told,
            msg.Results: lambda entry, message: _writer(entry).results(message),
            msg.Checkpoint: self._checkpoint,
            msg.Gather: self._gather,
            msg.Register: self._register,
            msg.Calls: self._calls,
            msg.Asks: self._asks,
            msg.Waits: lambda entry, m: self._post(ev.JobWaits(entry.job_id, m.idle)),
            msg.Returned: self._returned,
            msg.Raised: self._raised,
            msg.GaveWay: self._gave_way,
        }

    async def begin(self, entry: Entry) -> None:
        """The attempt is on disk: start its worker, or make its call."""
        assert entry.attempt is not None
        if self._was_killed(entry):
            return
        if entry.is_call:
            self._begin_call(entry)
            return
        try:
            run = await self._run_message(entry, entry.attempt)
        except LLMOSError as error:
            is_passing = isinstance(error, PASSING)
            outcome = Outcome.NOT_STARTED if is_passing else Outcome.RAISED
            self._over(entry, outcome, error.to_info())
            return
        if self._was_killed(entry):
            return
        self._open_writer(entry, entry.attempt)
        assert entry.program is not None
        try:
            self._workers.start_program(
                entry.job_id, entry.program.python, run, takes_spare=entry.takes_spare
            )
        except LLMOSError as error:  # no message holds its inputs
            entry.outcome, entry.error = Outcome.RAISED, error.to_info()
            self._workers.end_program(entry.job_id, None)

    def _was_killed(self, entry: Entry) -> bool:
        """While it waited for the disk."""
        if entry.is_killed:
            self._over(entry, Outcome.DIED, None)
        return entry.is_killed

    async def _run_message(self, entry: Entry, attempt: Attempt) -> msg.Run:
        """Raises NotFound for a file that is gone, ModelNotFound for a model."""
        record, program, config = entry.record, entry.program, self._config
        assert program is not None
        paths: dict[str, str] = {}
        for name, file_id in record.spec.files.items():
            ref = await self._services.files.blob(file_id)
            paths[name] = ref.path or ""
        find = self._services.find_model
        models = {name: find(ref).folder for name, ref in record.spec.models.items()}
        job_id = record.job_id
        done = await self._disk.surely(
            "result_keys", lambda: self._services.store.result_keys(job_id)
        )
        return msg.Run(
            job_id=job_id,
            attempt=attempt.number,
            entry=program.entry,
            inputs=record.spec.inputs,
            files=paths,
            checkpoint=record.checkpoint.path if record.checkpoint else None,
            done_keys=done,
            max_results_in_flight=config.max_results_in_flight,
            max_log_lines_per_s=config.max_log_lines_per_s,
            max_calls_in_flight=config.max_calls_in_flight,
            models=models,
            niceness=config.compute_niceness if program.compute else 0,
        )

    def _open_writer(self, entry: Entry, attempt: Attempt) -> None:
        job_id = entry.job_id

        def lost() -> None:
            entry.is_lost = True
            if entry.is_call:
                self._end_call(entry)
            else:
                self._workers.end_program(job_id, LOST)

        entry.writer = Writer(
            attempt,
            self._services.store,
            self._services.files,
            self._disk,
            max_events=self._config.max_pending_events,
            max_rows=self._config.max_results_in_flight,
            reply=lambda kept: self._workers.send_program(job_id, kept),
            lost=lost,
            written=lambda: self._hub.tell(job_id),
            register=lambda path, name, folder: self._services.register(
                entry.record, path, name, folder
            ),
        )

    # what the core wants of it

    def ask(self, entry: Entry, stop: bool, reason: str) -> None:
        """To leave. A call just ends: it is made again if its job comes back."""
        if entry.is_call:
            self._end_call(entry)
        else:
            self._workers.send_program(entry.job_id, msg.GiveWay(reason, stop))

    def kill(self, entry: Entry, reason: str) -> None:
        """Now, or as soon as it is there."""
        entry.is_killed = True
        if entry.is_call and entry.desk is not None:
            self._end_call(entry)
        else:
            self._workers.end_program(entry.job_id, WorkerLost(reason))

    # durable calls

    def _begin_call(self, entry: Entry) -> None:
        self._post(ev.JobBegun(entry.job_id))
        try:
            generate = msgspec.convert(entry.record.spec.inputs.get("generate"), Generate)
        except msgspec.ValidationError as error:
            wrong = InvalidRequest(f"not a call: {error}", param="inputs.generate")
            self._over(entry, Outcome.RAISED, wrong.to_info())
            return
        if entry.record.spec.inputs.get("stream"):
            entry.teller = self._open_teller(entry)
        entry.desk = self._open_desk(entry, self._call_answered)
        entry.desk.ask(1, generate)

    def _open_teller(self, entry: Entry) -> Teller:
        attempt = entry.attempt
        assert attempt is not None
        self._open_writer(entry, attempt)
        return Teller(_writer(entry), attempt.number, self._config.text_period_s)

    def _call_answered(self, entry: Entry, number: int, answer: Answer) -> None:
        if entry.desk is None:
            return
        if answer.error is None:
            entry.outputs = {"answer": msgspec.to_builtins(answer)}
            self._over(entry, Outcome.RETURNED, None)
        else:
            self._over(entry, Outcome.RAISED, answer.error)

    def _end_call(self, entry: Entry) -> None:
        if entry.desk is not None:
            self._over(entry, Outcome.GAVE_WAY, None)

    def _open_desk(self, entry: Entry, answered: Callable[[Entry, int, Answer], None]) -> Desk:
        return Desk(
            self._services.connect(entry.job_id),
            entry.record,
            lambda number, answer: answered(entry, number, answer),
            max_open=self._config.max_calls_in_flight,
            on_text=None if entry.teller is None else entry.teller.tell,
        )

    # what workers say

    def on_program_up(self, job_id: str) -> None:
        self._post(ev.JobBegun(job_id))

    def on_program(self, job_id: str, message: Any) -> None:
        """Raises ProtocolViolation, which ends the worker."""
        entry = self._entries.get(job_id)
        if entry is not None and entry.outcome is None:
            self._takers[type(message)](entry, message)

    def on_program_gone(self, job_id: str, error: ErrorInfo | None) -> None:
        entry = self._entries.get(job_id)
        if entry is None:
            return
        if entry.outcome is not None:
            self._over(entry, entry.outcome, entry.error)
        elif error is not None and error.code == WorkerError.code:
            self._over(entry, Outcome.NOT_STARTED, error)
        else:
            self._over(entry, Outcome.DIED, error or WorkerLost("its worker stopped").to_info())

    def on_spare_gone(self, error: ErrorInfo | None) -> None:
        self._post(ev.SpareGone(error))

    def _told(self, entry: Entry, message: msg.Told) -> None:
        if message.progress is not None:
            entry.note_progress(message.progress)
        _writer(entry).told(message)

    def _checkpoint(self, entry: Entry, message: msg.Checkpoint) -> None:
        _writer(entry).checkpoint(message.path, self._workers.program_folder(entry.job_id))

    def _gather(self, entry: Entry, message: msg.Gather) -> None:
        _writer(entry).gather(message.stream, self._workers.program_folder(entry.job_id))

    def _register(self, entry: Entry, message: msg.Register) -> None:
        folder = self._workers.program_folder(entry.job_id)
        _writer(entry).register(message.path, message.name, folder)

    def _calls(self, entry: Entry, message: msg.Calls) -> None:
        desk = self._program_desk(entry)
        for number, generate in message.calls:
            desk.ask(number, generate)

    def _asks(self, entry: Entry, message: msg.Asks) -> None:
        def replied(reply: msg.Replied) -> None:
            with contextlib.suppress(ChannelClosed):
                self._workers.send_program(entry.job_id, reply)

        self._program_desk(entry).ask_system(message, replied)

    def _program_desk(self, entry: Entry) -> Desk:
        if entry.desk is None:
            entry.desk = self._open_desk(entry, self._program_answered)
        return entry.desk

    def _program_answered(self, entry: Entry, number: int, answer: Answer) -> None:
        with contextlib.suppress(ChannelClosed):
            self._workers.send_program(entry.job_id, msg.Answers([(number, answer)]))

    def _returned(self, entry: Entry, message: msg.Returned) -> None:
        entry.outputs = message.outputs
        self._last_word(entry, Outcome.RETURNED, None)

    def _raised(self, entry: Entry, message: msg.Raised) -> None:
        entry.traceback = message.traceback
        self._last_word(entry, Outcome.RAISED, message.error)

    def _gave_way(self, entry: Entry, message: msg.GaveWay) -> None:
        self._last_word(entry, Outcome.GAVE_WAY, None)

    def _last_word(self, entry: Entry, outcome: Outcome, error: ErrorInfo | None) -> None:
        entry.outcome, entry.error = outcome, error
        entry.see_use(*self._workers.program_use(entry.job_id))
        self._workers.end_program(entry.job_id, None)

    def _over(self, entry: Entry, outcome: Outcome, error: ErrorInfo | None) -> None:
        entry.outcome, entry.error = outcome, error
        if entry.teller is not None:
            entry.teller.flush()
            entry.teller = None
        if entry.desk is not None:
            entry.desk.close()
            entry.desk = None
        self._post(ev.JobOver(entry.job_id, outcome, error))


def _writer(entry: Entry) -> Writer:
    assert entry.writer is not None
    return entry.writer
