"""An evaluation from its file and flags to its report on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from llmos.cli.taskfile import read_yaml
from llmos.cli.taskrun import wait

if TYPE_CHECKING:
    from llmos.abi.jobs import JobRecord
    from llmos.sdk import Client

STREAMS = {"html": "raw:html", "json": "raw:json", "jsonl": "examples"}
SHOWN_SLICES = 20


class Planned(NamedTuple):
    """What is asked for, and where its data are."""

    spec: dict[str, Any]
    data: Path
    corpus: Path | None = None


def plan(
    file: Path | None, given: dict[str, Any], data: str | None, corpus: str | None = None
) -> Planned:
    """A file's fields, and over them the flags'. Raises InvalidRequest naming the field."""
    from llmos.abi.evals import EvalKind, format_of, read_eval
    from llmos.errors import InvalidRequest

    spec: dict[str, Any] = {} if file is None else read_yaml(file, "evaluation")
    source = _path(spec.pop("data", None), "data", file, data)
    searched = _path(spec.pop("corpus", None), "corpus", file, corpus)
    spec |= given
    if source is None:
        raise InvalidRequest("there are no examples: --data FILE", param="data")
    read = read_eval(spec)
    if read.format is None and (form := format_of(source.name, EvalKind(read.kind))):
        spec["format"] = form.value
    if searched is not None:
        if read.kind is not EvalKind.RETRIEVE:
            raise InvalidRequest(f"{read.kind} searches no corpus", param="corpus")
        if read.corpus_format is None and (form := format_of(searched.name, EvalKind.RETRIEVE)):
            spec["corpus_format"] = form.value
    return Planned(spec, source, searched)


def _path(said: Any, name: str, file: Path | None, flag: str | None) -> Path | None:
    """A flag's, or the file's own, which is relative to it."""
    from llmos.errors import InvalidRequest

    if said is not None and not isinstance(said, str):
        raise InvalidRequest(f"'{name}' is the path of a file", param=name)
    if flag is not None:
        return Path(flag)
    if said is None or file is None:
        return None
    return file.parent / Path(said).expanduser()


def run_evaluation(
    planned: Planned, class_name: str, out: list[Path], *, detach: bool, as_json: bool
) -> None:
    """Exits with 1 unless it was measured and passed its gate."""
    from llmos.abi.evals import CORPUS, DATA, EVAL, EVALUATE
    from llmos.abi.jobs import JobSpec, JobState
    from llmos.abi.principal import ServiceClass
    from llmos.cli.output import emit, emit_json, note
    from llmos.cli.session import connect

    _check_targets(out)
    with connect() as client:
        files = {DATA: client.files.put(planned.data, purpose="user_data").id}
        if planned.corpus is not None:
            files[CORPUS] = client.files.put(planned.corpus, purpose="user_data").id
        spec = JobSpec(
            program=EVALUATE,
            inputs={EVAL: planned.spec},
            name=str(planned.spec.get("title", "")),
            files=files,
            service_class=ServiceClass[class_name.upper()],
        )
        reply = client.jobs.submit(spec)
        job_id = reply.job.job_id
        if detach:
            emit_json(reply) if as_json else emit(job_id)
            return
        try:
            job = wait(client.jobs.show, job_id)
        except KeyboardInterrupt:
            note(f"{job_id} goes on; `llmos eval show {job_id[-8:]}` tells what it came to")
            raise
        if job.state is JobState.SUCCEEDED:
            save(client, job, out)
    report(job, as_json=as_json)


def _check_targets(out: list[Path]) -> None:
    from llmos.errors import InvalidRequest

    for path in out:
        if path.suffix.removeprefix(".") not in STREAMS:
            text = f"{path}: a report is .html, .json or .jsonl"
            raise InvalidRequest(text, param="out")


def save(client: Client, job: JobRecord, out: list[Path]) -> None:
    """Each file whole or not at all. Raises Conflict, NotFound."""
    from llmos.errors import Conflict, NotFound

    _check_targets(out)
    files = (job.outputs or {}).get("files")
    if out and not isinstance(files, dict):
        raise Conflict(f"{job.job_id} is {job.state}: it has no report")
    for path in out:
        stream = STREAMS[path.suffix.removeprefix(".")]
        file_id = files.get(stream) if isinstance(files, dict) else None
        if not file_id:
            raise NotFound(f"{job.job_id} has no {stream}")
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                client.files.get(file_id, file.write)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def report(job: JobRecord, *, as_json: bool) -> None:
    """What it came to, and the exit code."""
    from llmos.abi.jobs import JobState
    from llmos.cli.failure import FAILED
    from llmos.cli.output import emit, emit_json, note

    outputs = job.outputs or {}
    if as_json:
        emit_json(job)
    elif job.state is JobState.SUCCEEDED and "scores" in outputs:
        emit(text_of(outputs))
    else:
        said = job.reason if job.error is None else f"{job.error.message} ({job.error.code})"
        note(f"{job.job_id}  {job.state}: {said}")
    gate = outputs.get("gate")
    is_good = job.state is JobState.SUCCEEDED and outputs.get("status") == "completed"
    if not is_good or (isinstance(gate, dict) and not gate["passed"]):
        raise typer.Exit(FAILED)


def text_of(outputs: dict[str, Any]) -> str:
    """An evaluation's outputs as tables."""
    from llmos.cli.text import table

    against = outputs["against"]
    parts = [f"{outputs['kind']}  {outputs['model']}  {outputs['examples']} examples"]
    if outputs["rejected"] or outputs["failed"]:
        parts[0] += f", {outputs['rejected']} without an answer, {outputs['failed']} left out"
    headers = ["SCORE", "VALUE", f"{outputs['confidence']:.0%} INTERVAL"]
    headers += [against.upper(), "DIFFERENCE", "INTERVAL", "P"] if against else []
    rows = []
    for name, row in outputs["scores"].items():
        cells = [name, _number(row["value"]), _interval(row)]
        if against:
            found = row.get("difference") or {}
            cells += [_number(row.get("against")), _number(found.get("value"))]
            cells += [_interval(found), _number(found.get("p_value"))]
        rows.append(cells)
    parts.append(table(headers, rows))
    if outputs["slices"]:
        shown = [
            (f"{s['column']}={s['value']}", str(s["examples"]), _number(s["score"]), _interval(s))
            for s in outputs["slices"][:SHOWN_SLICES]
        ]
        parts.append(table(("SLICE", "EXAMPLES", outputs["score"].upper(), "INTERVAL"), shown))
    if gate := outputs.get("gate"):
        parts.append("gate: passed" if gate["passed"] else "gate: NOT passed")
        parts += [f"  {'ok' if c['passed'] else 'no'}  {c['reason']}" for c in gate["checks"]]
    parts += [f"note: {note}" for note in outputs["notes"]]
    return "\n".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(row: dict[str, Any]) -> str:
    if row.get("low") is None:
        return "-"
    return f"{row['low']:.4g} to {row['high']:.4g}"
