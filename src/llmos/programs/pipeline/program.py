"""The program `pipeline`: start what may start, wait for it, and keep what each step came to.

What was started and what is done are keyed results, so another attempt finds its children again and
starts none twice. While it waits it takes nobody's place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.jobs import ENDED, Idempotency, JobRecord, JobSpec, JobState
from llmos.abi.pipelines import PIPELINE, PipelineSpec, Step, filled, needs_of, read_pipeline
from llmos.abi.program import Context, Interrupted, Yielded
from llmos.abi.syscall import AliasModel, WaitProcess
from llmos.abi.syscall_jobs import RetryJob, ShowJob, SubmitJob
from llmos.errors import ErrorInfo, ProgramFailed, from_info
from llmos.programs.pipeline.verdicts import verdict_of

STARTED, DONE = "started", "steps"
"""The streams: ids of children, and what steps came to."""

WAIT_S = 1.0

_encode = msgspec.json.Encoder().encode


class Came(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step came to. `state`: done, stopped (a gate that was not passed), skipped."""

    step: str
    state: str
    reason: str = ""
    job_id: str = ""
    outputs: dict[str, Any] = {}


class PipelineProgram:
    """Behind `abi.Program`."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """Outputs: `status` (completed, stopped, cancelled), `steps` with their states and reasons.

        Raises InvalidRequest for a spec that is none, and what a step failed with.
        """
        spec = read_pipeline(ctx.inputs.get(PIPELINE))
        try:
            return _Run(ctx, spec).run()
        except Interrupted:
            return {"status": "cancelled"}


class _Run:
    """One attempt."""

    def __init__(self, ctx: Context, spec: PipelineSpec) -> None:
        self._ctx = ctx
        self._spec = spec
        self._came = {came.step: came for came in _kept(ctx)}
        self._under_way = {name: job_id for name, job_id in _started(ctx) if name not in self._came}

    def run(self) -> Mapping[str, Any]:
        self._revive()
        while len(self._came) < len(self._spec.steps):
            for name in [*self._ready()]:
                self._start(name, self._spec.steps[name])
            self._tell()
            if self._under_way:
                self._wait()
        steps = [self._came[name] for name in self._spec.steps]
        stopped = next((came for came in steps if came.state == "stopped"), None)
        return {
            "status": "stopped" if stopped else "completed",
            "reason": stopped.reason if stopped else "",
            "steps": {
                came.step: {"state": came.state, "reason": came.reason, "job_id": came.job_id}
                for came in steps
            },
        }

    def _ready(self) -> Iterator[str]:
        for name, step in self._spec.steps.items():
            if name in self._came or name in self._under_way:
                continue
            if needs_of(step) <= self._came.keys():
                yield name

    # starting

    def _start(self, name: str, step: Step) -> None:
        stopped = [n for n in sorted(needs_of(step)) if self._came[n].state != "done"]
        if stopped:
            self._keep(Came(name, "skipped", f"{stopped[0]} was {self._came[stopped[0]].state}"))
        elif step.gate:
            passed, reason = verdict_of(step.gate, self._came[step.gate].outputs)
            self._keep(Came(name, "done" if passed else "stopped", reason))
        elif step.promote is not None:
            self._promote(name, step)
        else:
            self._submit(name, step)

    def _promote(self, name: str, step: Step) -> None:
        assert step.promote is not None
        ref = str(self._fill(step.promote.model))
        gates = [self._came[n].reason for n in sorted(needs_of(step)) if self._spec.steps[n].gate]
        reason = f"pipeline {self._ctx.job_id}: " + ("; ".join(gates) or "no gate")
        asked = AliasModel(ref, step.promote.alias, reason[:4000])
        version = self._ctx.ask(asked).model
        told = f"{version.name}:{step.promote.alias} is {version.ref}"
        self._keep(Came(name, "done", told, outputs={"model": version.ref}))

    def _submit(self, name: str, step: Step) -> None:
        spec = JobSpec(
            program=step.program,
            inputs=self._fill(step.inputs),
            name=f"{self._spec.name or PIPELINE}/{name}",
            files=self._fill(step.files),
            models=self._fill(step.models),
            memory_bytes=step.memory_bytes,
            timeout_s=step.timeout_s,
        )
        digest = hashlib.sha256(_encode(spec)).hexdigest()
        asked = SubmitJob(spec, Idempotency(f"{self._ctx.job_id}/{name}", digest))
        job: JobRecord = self._ctx.ask(asked).job
        self._ctx.result(STARTED, name, list(self._spec.steps).index(name), _encode(job.job_id))
        self._under_way[name] = job.job_id
        self._ctx.emit("step", {"step": name, "state": "started", "job_id": job.job_id})

    def _fill(self, value: Any) -> Any:
        outputs = {name: came.outputs for name, came in self._came.items()}
        return filled(value, outputs)

    def _revive(self) -> None:
        """Children that ended badly in an earlier life of this pipeline are tried again with it."""
        for job_id in self._under_way.values():
            job = self._job(job_id)
            if job.state in ENDED and job.state is not JobState.SUCCEEDED:
                self._ctx.ask(RetryJob(job_id))

    # waiting

    def _wait(self) -> None:
        ended = [
            (name, job)
            for name, job in ((n, self._job(i)) for n, i in [*self._under_way.items()])
            if job.state in ENDED
        ]
        for name, job in ended:
            del self._under_way[name]
            self._end(name, job)
        if ended:
            return
        if self._ctx.should_yield and not self._ctx.should_stop:
            raise Yielded
        self._ctx.ask(WaitProcess(next(iter(self._under_way.values())), WAIT_S))

    def _job(self, job_id: str) -> JobRecord:
        job: JobRecord = self._ctx.ask(ShowJob(job_id)).job
        return job

    def _end(self, name: str, job: JobRecord) -> None:
        if job.state is not JobState.SUCCEEDED:
            why = job.error.message if job.error else job.reason
            told = f"step {name!r} is {job.state} ({job.job_id}): {why}"
            code = job.error.code if job.error else ProgramFailed.code
            raise from_info(ErrorInfo(code, told))
        outputs = job.outputs or {}
        self._keep(Came(name, "done", _summary(outputs), job.job_id, outputs))

    def _keep(self, came: Came) -> None:
        self._came[came.step] = came
        order = list(self._spec.steps).index(came.step)
        self._ctx.result(DONE, came.step, order, _encode(came))
        told = {"step": came.step, "state": came.state, "reason": came.reason}
        self._ctx.emit("step", told | ({"job_id": came.job_id} if came.job_id else {}))

    def _tell(self) -> None:
        under_way = ", ".join(self._under_way) or "done"
        self._ctx.progress(len(self._came), len(self._spec.steps), "steps", under_way)


def _summary(outputs: Mapping[str, Any]) -> str:
    """What is worth a line of what a job came to."""
    if isinstance(outputs.get("scores"), dict):
        main = outputs["scores"].get(outputs.get("score"), {})
        return f"{outputs['score']} {main.get('value')} on {outputs.get('examples')} examples"
    return f"made {outputs['model']}" if isinstance(outputs.get("model"), str) else ""


def _kept(ctx: Context) -> Iterator[Came]:
    if any(stream == DONE for stream, _ in ctx.done_keys):
        yield from (msgspec.json.decode(line, type=Came) for line in _read(ctx, DONE))


def _started(ctx: Context) -> Iterator[tuple[str, str]]:
    names = sorted(key for stream, key in ctx.done_keys if stream == STARTED)
    if not names:
        return
    order = list(read_pipeline(ctx.inputs.get(PIPELINE)).steps)
    names.sort(key=order.index)
    ids = (msgspec.json.decode(line, type=str) for line in _read(ctx, STARTED))
    yield from zip(names, ids, strict=True)


def _read(ctx: Context, stream: str) -> Iterator[bytes]:
    with Path(ctx.gather(stream)).open("rb") as file:
        yield from file
