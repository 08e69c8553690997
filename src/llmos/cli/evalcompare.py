"""Two evaluations that have ended, compared from the files they kept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.programs.evaluate.kept import Kept
    from llmos.sdk import Client


def compare(first: str, second: str, score: str, resamples: int, *, as_json: bool) -> None:
    """The first against the second. Raises InvalidRequest for two that cannot be compared, Conflict
    for one that has no report.
    """
    from llmos.cli.evalrun import text_of
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.programs.evaluate.kept import compare_kept

    with connect() as client:
        ours, theirs = (_kept(client, given) for given in (first, second))
    made = compare_kept(ours, theirs, score=score, resamples=resamples)
    emit_json(made) if as_json else emit(text_of(made))


def _kept(client: Client, given: str) -> Kept:
    from llmos.abi.evals import EVAL, EVALUATE, read_eval
    from llmos.cli.evalrun import STREAMS
    from llmos.cli.find import find_job
    from llmos.errors import Conflict, InvalidRequest
    from llmos.programs.evaluate.kept import read_kept

    job = client.jobs.show(find_job(client, given)).job
    if job.spec.program != EVALUATE:
        raise InvalidRequest(f"{job.job_id} is a job of {job.spec.program}, no evaluation")
    outputs: dict[str, Any] = job.outputs or {}
    file_id = (outputs.get("files") or {}).get(STREAMS["jsonl"])
    if not file_id or "scores" not in outputs:
        raise Conflict(f"{job.job_id} is {job.state}: it has no examples to compare")
    data = io.BytesIO()
    client.files.get(file_id, data.write)
    spec = read_eval(job.spec.inputs.get(EVAL))
    return read_kept(job.job_id, spec, outputs, data.getvalue())
