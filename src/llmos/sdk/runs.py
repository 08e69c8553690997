"""Training runs and evaluations: started with their data, watched, and looked at as a whole.

Both are jobs; what they log and leave behind is put together here.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.evals import DATA, EVAL, EVALUATE, EvalKind, format_of, read_eval
from llmos.abi.jobs import JobSpec
from llmos.abi.principal import ServiceClass
from llmos.errors import Conflict, InvalidRequest
from llmos.sdk.config import ClientConfig
from llmos.sdk.files import get_file, put_file
from llmos.sdk.groups import Async, AsyncGroup, Group, Sync
from llmos.sdk.jobs import follow_job, job_events, list_jobs, show_job, submit_job
from llmos.sdk.look import Evaluation, Run
from llmos.sdk.shown import Job, Jobs
from llmos.sdk.wire import Call

TRAIN = "train"
"""The program of training, and below it the key of its inputs."""
RECIPE = "recipe"
REPORT = "raw:json"
"""The stream of an evaluation's whole report."""
WATCHED = ("metric", "output")
PAGE = 1000


def list_runs(config: ClientConfig, *, limit: int = 100) -> Call[Jobs]:
    """Training runs, newest first."""
    return list_jobs(config, program=TRAIN, limit=limit)


def list_evaluations(config: ClientConfig, *, limit: int = 100) -> Call[Jobs]:
    """Evaluations, newest first."""
    return list_jobs(config, program=EVALUATE, limit=limit)


def train_steps(
    config: ClientConfig,
    recipe: Mapping[str, Any],
    data: Mapping[str, str | Path],
    service_class: ServiceClass,
) -> Generator[Call[Any], Any, Job]:
    """Send the files, then the recipe."""
    files, names = {}, dict(recipe.get("data") or {})
    for split, given in data.items():
        path = Path(given)
        files[split] = (yield put_file(config, path, purpose="batch")).id
        names[split] = path.name
    base = recipe.get("base")
    spec = JobSpec(
        program=TRAIN,
        inputs={RECIPE: {**recipe, "data": names}},
        name=str(recipe.get("name", "")),
        files=files,
        models={"base": base} if base else {},
        service_class=service_class,
    )
    job: Job = yield submit_job(config, spec)
    return job


def evaluate_steps(
    config: ClientConfig, spec: Mapping[str, Any], data: str | Path, service_class: ServiceClass
) -> Generator[Call[Any], Any, Job]:
    """Check what is asked, send the examples, submit."""
    path, asked = Path(data), dict(spec)
    read = read_eval(asked)
    if read.format is None and (found := format_of(path.name, EvalKind(read.kind))):
        asked["format"] = found.value
    sent = yield put_file(config, path)
    made = JobSpec(
        program=EVALUATE,
        inputs={EVAL: asked},
        name=str(asked.get("title", "")),
        files={DATA: sent.id},
        service_class=service_class,
    )
    job: Job = yield submit_job(config, made)
    return job


def run_steps(config: ClientConfig, job_id: str) -> Generator[Call[Any], Any, Run]:
    """A run and all that it has logged."""
    reply: Job = yield show_job(config, job_id)
    run = Run(reply.job)
    while True:
        found = yield job_events(config, job_id, after=run.log.after, limit=PAGE, kinds=WATCHED)
        run.log.feed(found)
        if len(found) < PAGE:
            return run


def evaluation_steps(config: ClientConfig, job_id: str) -> Generator[Call[Any], Any, Evaluation]:
    """What it came to, and its report once there is one."""
    reply: Job = yield show_job(config, job_id)
    if reply.job.spec.program != EVALUATE:
        text = f"{job_id} is no evaluation, it runs {reply.job.spec.program}"
        raise InvalidRequest(text, param="job_id")
    files = (reply.job.outputs or {}).get("files")
    file_id = files.get(REPORT) if isinstance(files, dict) else None
    report: dict[str, Any] = {}
    if isinstance(file_id, str):
        data = bytearray()
        yield get_file(config, file_id, data.extend)
        report = _report(bytes(data))
    return Evaluation(reply.job, report)


def _report(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Conflict(f"the evaluation's report cannot be read: {error}") from error


class Runs(Group):
    """`client.runs`: training."""

    list = Sync(list_runs)

    def train(
        self,
        recipe: Mapping[str, Any],
        *,
        service_class: ServiceClass = ServiceClass.BATCH,
        **data: str | Path,
    ) -> Job:
        """Begin a run: `train="train.csv"`, `validation=`, `test=` are files of this machine, the
        rest is a recipe (docs/recipe.md). Raises InvalidRequest, StorageError, QueueFull."""
        steps = train_steps(self._transport.config, recipe, data, service_class)
        return self._transport.run_steps(steps)

    def show(self, run_id: str) -> Run:
        """A run with its curves and samples so far. Raises NotFound, OffsetLost."""
        return self._transport.run_steps(run_steps(self._transport.config, run_id))

    def watch(self, run_id: str) -> Run:
        """Its curves as they grow, to its end; then the run. Raises NotFound, OffsetLost."""
        call = follow_job(self._transport.config, run_id, kinds=WATCHED)
        run: Run = self._transport.open(call).show()
        return run


class AsyncRuns(AsyncGroup):
    """`client.runs`: training."""

    list = Async(list_runs)

    async def train(
        self,
        recipe: Mapping[str, Any],
        *,
        service_class: ServiceClass = ServiceClass.BATCH,
        **data: str | Path,
    ) -> Job:
        """As `Runs.train`."""
        steps = train_steps(self._transport.config, recipe, data, service_class)
        return await self._transport.run_steps(steps)

    async def show(self, run_id: str) -> Run:
        """As `Runs.show`."""
        return await self._transport.run_steps(run_steps(self._transport.config, run_id))

    async def watch(self, run_id: str) -> Run:
        """As `Runs.watch`."""
        call = follow_job(self._transport.config, run_id, kinds=WATCHED)
        stream = await self._transport.open(call)
        run: Run = await stream.show()
        return run


class Evaluations(Group):
    """`client.evaluations`."""

    list = Sync(list_evaluations)

    def start(
        self,
        spec: Mapping[str, Any],
        data: str | Path,
        *,
        service_class: ServiceClass = ServiceClass.BATCH,
    ) -> Job:
        """Begin one: `spec` as docs/evaluate.md has it, `data` a file of this machine.

        Raises InvalidRequest, ModelNotFound, StorageError, QueueFull."""
        steps = evaluate_steps(self._transport.config, spec, data, service_class)
        return self._transport.run_steps(steps)

    def show(self, job_id: str) -> Evaluation:
        """Its scores, and its report once it has one. Raises NotFound, InvalidRequest."""
        return self._transport.run_steps(evaluation_steps(self._transport.config, job_id))


class AsyncEvaluations(AsyncGroup):
    """`client.evaluations`."""

    list = Async(list_evaluations)

    async def start(
        self,
        spec: Mapping[str, Any],
        data: str | Path,
        *,
        service_class: ServiceClass = ServiceClass.BATCH,
    ) -> Job:
        """As `Evaluations.start`."""
        steps = evaluate_steps(self._transport.config, spec, data, service_class)
        return await self._transport.run_steps(steps)

    async def show(self, job_id: str) -> Evaluation:
        """As `Evaluations.show`."""
        steps = evaluation_steps(self._transport.config, job_id)
        return await self._transport.run_steps(steps)
