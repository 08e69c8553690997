"""What is known of one task, for people: what was asked, how far it is, what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.abi.jobs import JobRecord
    from llmos.abi.syscall_jobs import JobReply

NS = 1_000_000_000


def facts(reply: JobReply) -> list[tuple[str, str]]:
    """Lines of a table."""
    from llmos.cli.jobs import progress_text
    from llmos.cli.text import age, seconds

    job, spec = reply.job, reply.job.spec
    task = spec.inputs.get("task", {})
    made = [
        ("type", str(task.get("kind", "-"))),
        ("model", str(task.get("model", "-"))),
        ("chosen", str(task.get("reason") or "by name")),
        ("name", spec.name or "-"),
        ("state", job.state),
        ("reason", job.reason or "-"),
        ("owner", f"{job.principal.name} of {job.principal.tenant_id}"),
        ("class", f"{spec.service_class.name.lower()}, nice {spec.nice}"),
        ("attempt", f"{job.attempt} of {spec.max_attempts}; {job.num_deaths} worker deaths"),
        ("progress", progress_text(job)),
        ("ends in", seconds(reply.eta_s)),
        ("submitted", f"{age(job.created_ns)} ago"),
    ]
    if job.error is not None:
        made.append(("error", f"{job.error.code}: {job.error.message}"))
    return made + _outcome(job)


def _outcome(job: JobRecord) -> list[tuple[str, str]]:
    """Of one that has ended: the figures of its results, and where they are."""
    from llmos.cli.text import seconds

    made = []
    if job.started_ns is not None and job.ended_ns is not None:
        made.append(("took", seconds((job.ended_ns - job.started_ns) / NS)))
    outputs: dict[str, Any] = dict(job.outputs or {})
    if "usage" not in outputs:
        return made
    counts, usage = outputs["counts"], outputs["usage"]
    made += [
        ("rows", f"{counts['completed']} done, {counts['failed']} failed"),
        ("rate", f"{outputs['rows_per_s'] or 0:,.1f} rows a second"),
        ("tokens", f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out"),
        ("cost", "-" if outputs["cost"] is None else f"${outputs['cost']:.4f}"),
    ]
    if counts["completed"]:
        half_s, most_s = (outputs["ms"][name] / 1000 for name in ("p50", "p95"))
        made.append(("answered", f"half within {half_s:.3g} s, 95 % within {most_s:.3g} s"))
    for name in ("labels", "errors"):
        if found := outputs[name]:
            made.append((name, ", ".join(f"{n:,} {what}" for what, n in found.items())))
    files = [name.removeprefix("raw:") for name, file_id in outputs["files"].items() if file_id]
    made.append(("results", f"{', '.join(files)}: llmos task result {job.job_id[-8:]}"))
    return made
