"""The program `pipeline`: order, references, gates, and children found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.abi.pipelines import PIPELINE
from llmos.abi.principal import Principal
from llmos.abi.program import Yielded
from llmos.abi.syscall import AliasModel, Model, WaitProcess
from llmos.abi.syscall_jobs import JobReply, RetryJob, ShowJob, SubmitJob
from llmos.errors import InvalidRequest, LLMOSError, OutOfMemory
from llmos.programs.pipeline.program import PipelineProgram
from tests.unit.programs.fake_context import FakeContext, Rows
from tests.unit.programs.test_evaluate import version

OWNER = Principal("prn_1", "ten_1", "me")
GOOD = {"passed": True, "checks": [{"passed": True, "reason": "f1 is 0.9, at least 0.8 wanted"}]}
BAD = {"passed": False, "checks": [{"passed": False, "reason": "f1 is 0.7, at least 0.8 wanted"}]}

LOOP: dict[str, Any] = {
    "name": "loop",
    "steps": {
        "train": {
            "program": "train",
            "inputs": {"recipe": {"name": "m"}},
            "files": {"train": "file_1"},
        },
        "evaluate": {
            "program": "evaluate",
            "inputs": {"eval": {"kind": "classify", "model": "${train.model}"}},
        },
        "gate": {"gate": "evaluate"},
        "promote": {
            "promote": {"model": "${train.model}", "alias": "production"},
            "needs": ["gate"],
        },
    },
}
OUTPUTS = {"train": {"model": "m:3", "status": "completed"}, "evaluate": {"gate": GOOD}}


class Kernel:
    """Jobs that end after they were waited for once, with outputs by the name of their step."""

    def __init__(self, outputs: dict[str, Any], fails: dict[str, LLMOSError] | None = None) -> None:
        self.outputs = outputs
        self.fails = fails or {}
        self.jobs: dict[str, JobRecord] = {}
        self.submitted: list[JobSpec] = []
        self.aliases: list[AliasModel] = []
        self.retried: list[str] = []

    def connect(self, ctx: FakeContext) -> FakeContext:
        ctx.asked = {
            SubmitJob: self.submit,
            ShowJob: lambda call: JobReply(self.jobs[call.job_id]),
            WaitProcess: self.wait,
            RetryJob: self.retry,
            AliasModel: self.alias,
        }
        return ctx

    def submit(self, call: SubmitJob) -> JobReply:
        job_id = f"job_{len(self.jobs)}"
        self.submitted.append(call.spec)
        self.jobs[job_id] = JobRecord(job_id, OWNER, call.spec, JobState.RUNNING, 0, 1)
        return JobReply(self.jobs[job_id])

    def wait(self, call: WaitProcess) -> None:
        for job_id, job in self.jobs.items():
            step = job.spec.name.rpartition("/")[2]
            if error := self.fails.get(step):
                ended: dict[str, Any] = {"state": JobState.FAILED, "error": error.to_info()}
            else:
                ended = {"state": JobState.SUCCEEDED, "outputs": self.outputs[step]}
            self.jobs[job_id] = msgspec.structs.replace(job, **ended)

    def retry(self, call: RetryJob) -> JobReply:
        self.retried.append(call.job_id)
        job = msgspec.structs.replace(self.jobs[call.job_id], state=JobState.RUNNING, error=None)
        self.jobs[call.job_id] = job
        return JobReply(job)

    def alias(self, call: AliasModel) -> Model:
        self.aliases.append(call)
        return Model(msgspec.structs.replace(version("m", []), version="3"))


def context(folder: Path, spec: dict[str, Any], rows: Rows | None = None) -> FakeContext:
    return FakeContext(folder, {PIPELINE: spec}, rows=rows)


def test_a_closed_loop_ends_with_a_promotion(tmp_path: Path) -> None:
    kernel = Kernel(OUTPUTS)
    ctx = kernel.connect(context(tmp_path, LOOP))
    outputs = PipelineProgram().run(ctx)
    assert outputs["status"] == "completed"
    assert [step["state"] for step in outputs["steps"].values()] == ["done"] * 4
    train, evaluate = kernel.submitted
    assert (train.program, train.files, train.name) == ("train", {"train": "file_1"}, "loop/train")
    assert evaluate.inputs["eval"]["model"] == "m:3"
    (alias,) = kernel.aliases
    assert (alias.ref, alias.alias) == ("m:3", "production")
    assert alias.reason == "pipeline job_7: passed: f1 is 0.9, at least 0.8 wanted"
    told = [value for kind, value in ctx.events if kind == "step"]
    assert [(one["step"], one["state"]) for one in told] == [
        ("train", "started"),
        ("train", "done"),
        ("evaluate", "started"),
        ("evaluate", "done"),
        ("gate", "done"),
        ("promote", "done"),
    ]


def test_a_gate_that_is_not_passed_stops_what_comes_after(tmp_path: Path) -> None:
    kernel = Kernel({**OUTPUTS, "evaluate": {"gate": BAD}})
    outputs = PipelineProgram().run(kernel.connect(context(tmp_path, LOOP)))
    assert outputs["status"] == "stopped"
    assert outputs["reason"] == "not passed: f1 is 0.7, at least 0.8 wanted"
    assert outputs["steps"]["promote"] == {
        "state": "skipped",
        "reason": "gate was stopped",
        "job_id": "",
    }
    assert kernel.aliases == []


def test_another_attempt_finds_its_children_again(tmp_path: Path) -> None:
    kernel, rows = Kernel(OUTPUTS), Rows()
    first = kernel.connect(context(tmp_path, LOOP, rows))
    first.should_yield = True
    with pytest.raises(Yielded):
        PipelineProgram().run(first)
    second = kernel.connect(context(tmp_path, LOOP, rows))
    assert PipelineProgram().run(second)["status"] == "completed"
    third = kernel.connect(context(tmp_path, LOOP, rows))
    assert PipelineProgram().run(third)["status"] == "completed"
    assert len(kernel.submitted) == 2
    assert len(kernel.aliases) == 1
    assert kernel.retried == []


def test_a_step_that_fails_fails_the_pipeline_and_is_tried_again_with_it(tmp_path: Path) -> None:
    kernel, rows = Kernel(OUTPUTS, {"train": OutOfMemory("too large")}), Rows()
    with pytest.raises(OutOfMemory, match=r"step 'train' is failed \(job_0\): too large"):
        PipelineProgram().run(kernel.connect(context(tmp_path, LOOP, rows)))
    kernel.fails = {}
    outputs = PipelineProgram().run(kernel.connect(context(tmp_path, LOOP, rows)))
    assert (outputs["status"], kernel.retried) == ("completed", ["job_0"])
    assert len(kernel.submitted) == 2


def test_steps_that_do_not_need_each_other_run_side_by_side(tmp_path: Path) -> None:
    steps = {
        "a": {"program": "drill"},
        "b": {"program": "drill"},
        "c": {"program": "drill", "inputs": {"text": "${a.x} and ${b.x}", "all": "${a}"}},
    }
    kernel = Kernel({"a": {"x": 1}, "b": {"x": 2}, "c": {}})
    ctx = kernel.connect(context(tmp_path, {"steps": steps}))
    PipelineProgram().run(ctx)
    told = [(value["step"], value["state"]) for _, value in ctx.events]
    assert told[:2] == [("a", "started"), ("b", "started")]
    assert kernel.submitted[-1].inputs == {"text": "1 and 2", "all": {"x": 1}}


def _with(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    made = json.loads(json.dumps(LOOP))
    change(made["steps"])
    return dict(made)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"steps": {}}, "1 to 64 steps"),
        ({"steps": {"A": {"program": "x"}}}, "a letter, then small letters"),
        ({"steps": {"a": {}}}, "one of `program`, `gate` and `promote`"),
        ({"steps": {"a": {"program": "x", "gate": "a"}}}, "one of `program`"),
        ({"steps": {"a": {"program": "x", "needs": ["b"]}}}, "needs 'b', which is none"),
        ({"steps": {"a": {"program": "x", "inputs": {"y": "${b.z}"}}}}, "needs 'b'"),
        (
            {"steps": {n: {"program": "x", "needs": [m]} for n, m in ("ab", "ba")}},
            "'a', 'b' need each other",
        ),
        ({"steps": {"a": {"program": "x", "input": {}}}}, "unknown field `input`"),
        ({"step": {}}, "required field `steps`|unknown field"),
        (_with(lambda s: s.update(evaluate={"program": "evaluate"})), "no verdict"),
        (
            _with(lambda s: s["evaluate"].update(inputs={"m": "${train.models}"})),
            "there is no 'models', only model, status",
        ),
    ],
)
def test_what_is_no_pipeline_is_refused_by_name(
    tmp_path: Path, spec: dict[str, Any], match: str
) -> None:
    kernel = Kernel({"train": OUTPUTS["train"], "evaluate": {}})
    with pytest.raises(InvalidRequest, match=match):
        PipelineProgram().run(kernel.connect(context(tmp_path, spec)))
