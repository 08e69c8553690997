"""The programs that come with LLMOS, as entry points of group `llmos.programs` name them."""

from __future__ import annotations

from llmos.abi.evals import EVAL, EVALUATE
from llmos.abi.jobs import BATCH
from llmos.abi.pipelines import PIPELINE
from llmos.abi.program import RAW, ProgramEntry
from llmos.abi.tasks import TASK, OutputFormat

BATCHES = ProgramEntry(
    name=BATCH,
    entry="llmos.programs.batch.program:BatchProgram",
    memory_bytes=256 << 20,
    checkpoints=True,
    exports={"output": "batch_output.jsonl", "error": "batch_errors.jsonl"},
    about="Answers every request of a JSONL file, as OpenAI's Batch API does",
    inputs={
        "endpoint": "the route of every line: /v1/chat/completions, /v1/completions, /v1/responses",
        "window": "requests under way at once, 1 to 1024 (default 128)",
        "completion_window": "the client's word for the time it has, such as 24h",
        "expires_at": "UTC seconds after which lines that are left fail with batch_expired",
    },
)

TASKS = ProgramEntry(
    name=TASK,
    entry="llmos.programs.task.program:TaskProgram",
    memory_bytes=512 << 20,
    checkpoints=True,
    exports={"rows": "rows.jsonl", "errors": "errors.jsonl"}
    | {f"{RAW}{made.value}": f"output.{made.value}" for made in OutputFormat},
    about="One thing done with every input of a list or a file: see POST /os/v1/tasks",
    inputs={"task": "an abi.tasks.TaskSpec, as POST /os/v1/tasks makes it"},
)

EVALUATIONS = ProgramEntry(
    name=EVALUATE,
    entry="llmos.programs.evaluate.program:EvaluateProgram",
    memory_bytes=1 << 30,
    checkpoints=True,
    exports={
        "examples": "examples.jsonl",
        f"{RAW}html": "report.html",
        f"{RAW}json": "report.json",
    },
    about="How good a model's answers are: scores, intervals, a comparison, a gate's verdict",
    inputs={EVAL: "what is measured, of which model: see docs/evaluate.md"},
)

PIPELINES = ProgramEntry(
    name=PIPELINE,
    entry="llmos.programs.pipeline.program:PipelineProgram",
    memory_bytes=96 << 20,
    checkpoints=True,
    exports={"steps": "steps.jsonl"},
    about="Steps that are jobs of their own, gates and promotions, in the order they need",
    inputs={PIPELINE: "`steps` by name: see docs/evaluate.md"},
)

TRAINING = ProgramEntry(
    name="train",
    entry="llmos.programs.train.program:TrainProgram",
    memory_bytes=2 << 30,
    compute=True,
    checkpoints=True,
    exports={f"{RAW}adapter": "adapter.tar"},
    about="Trains a model by a recipe and registers it: see docs/train.md",
    inputs={"recipe": "all that is trained, on what and how; `llmos train --help-recipe`"},
    plan="llmos.programs.train.plan:plan",
    registers=True,
)

_STEPS = {"steps": "what to do, in order: objects with `do` and its fields (see programs/drill.py)"}

DRILL = ProgramEntry(
    name="drill",
    entry="llmos.programs.drill:Drill",
    memory_bytes=64 << 20,
    checkpoints=True,
    exports={"output": "drill.jsonl"},
    about="Does what its inputs say, failures included: a job's test double",
    inputs=_STEPS,
)

DRILL_COMPUTE = ProgramEntry(
    name="drill-compute",
    entry=DRILL.entry,
    memory_bytes=DRILL.memory_bytes,
    compute=True,
    checkpoints=True,
    exports=DRILL.exports,
    about="As drill, but counted as one that keeps processors busy",
    inputs=_STEPS,
)

PROGRAMS: dict[str, ProgramEntry] = {
    entry.name: entry
    for entry in (BATCHES, TASKS, EVALUATIONS, PIPELINES, TRAINING, DRILL, DRILL_COMPUTE)
}
"""Every built-in program by its name."""
