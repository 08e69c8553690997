"""A program worker over a real socket: outcomes, bounds, the kernel's wishes."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.abi import worker as msg
from llmos.abi.inference import ChatPrompt, Sampling
from llmos.abi.program import Context, Generate, Interrupted, Yielded
from llmos.errors import (
    DiskFull,
    InvalidRequest,
    LLMOSError,
)
from tests.unit.worker.kernel_end import KernelEnd

HERE = "tests.unit.worker.test_program"
ONE_CALL = "tests.unit.worker.test_program_calls:OneCall"


@pytest.fixture
def end(tmp_path: Path) -> Iterator[KernelEnd]:
    kernel = KernelEnd(tmp_path)
    yield kernel
    kernel.close()
    assert not kernel.thread.is_alive()


def ask(text: str) -> Generate:
    return Generate("echo", ChatPrompt([{"role": "user", "content": text}]), Sampling())


# outcomes


def test_outputs_come_back_with_all_that_was_told(end: KernelEnd) -> None:
    steps = [
        {"do": "emit", "kind": "metric", "value": {"loss": 0.5, "词": "🎉"}},
        {"do": "progress", "done": 1, "total": 4, "unit": "steps", "counts": {"ok": 1}},
        {"do": "progress", "done": 4, "total": 4, "unit": "steps", "what": "完成"},
        {"do": "return", "outputs": {"answer": 42}},
    ]
    assert end.run(steps) == msg.Returned({"answer": 42})
    assert [(e.kind, e.value) for e in end.events] == [("metric", {"loss": 0.5, "词": "🎉"})]
    assert end.events[0].at_ns > 0
    assert end.progress[-1].done == 4  # the last one is told, however soon it came
    assert end.progress[-1].what == "完成"


@pytest.mark.parametrize(
    ("step", "code", "retryable", "message"),
    [
        ({"do": "raise"}, "program_failed", False, "ValueError: the drill says so"),
        ({"do": "raise", "code": "queue_full"}, "queue_full", True, "the drill says so"),
        (
            {"do": "raise", "code": "queue_full", "retryable": False},
            "queue_full",
            False,
            "the drill says so",
        ),
        ({"do": "raise", "code": "MemoryError"}, "program_failed", False, "out of memory"),
        ({"do": "raise", "code": "KeyboardInterrupt"}, "program_failed", False, "Keyboard"),
        ({"do": "raise", "code": "GeneratorExit"}, "program_failed", False, "GeneratorExit"),
        ({"do": "exit", "status": 3}, "program_failed", False, "exited with SystemExit: 3"),
        ({"do": "exit", "status": 0}, "program_failed", False, "exited with SystemExit: 0"),
        ({"do": "fly"}, "invalid_request", False, "drill: "),
    ],
)
def test_what_a_program_raises_is_its_outcome(
    end: KernelEnd, step: dict[str, Any], code: str, retryable: bool, message: str
) -> None:
    outcome = end.run([step])
    assert isinstance(outcome, msg.Raised)
    assert (outcome.error.code, outcome.error.retryable) == (code, retryable)
    assert message in outcome.error.message
    assert "drill.py" in outcome.traceback
    assert "worker/program.py" not in outcome.traceback


class Deep:
    def run(self, ctx: Context) -> Any:
        return self.run(ctx)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Unspeakable:
    def run(self, ctx: Context) -> Any:
        raise Mute


class Surrogate:
    def run(self, ctx: Context) -> Any:
        raise InvalidRequest("half \ud83d", param="x\udc00", details={"a": {1, 2}, "n" * 9: 2**70})


class Long:
    def run(self, ctx: Context) -> Any:
        raise ValueError("y" * 10_000_000)


class Full:
    def run(self, ctx: Context) -> Any:
        raise OSError(28, "No space left on device")


class Broken:
    def __init__(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["Deep", "Unspeakable", "Long", "Broken", "Missing"])
def test_hostile_errors_become_one_bounded_outcome(end: KernelEnd, name: str) -> None:
    outcome = end.run(entry=f"{HERE}:{name}")
    assert isinstance(outcome, msg.Raised)
    assert outcome.error.code == ("plugin_error" if name == "Missing" else "program_failed")
    assert 0 < len(outcome.error.message) < 3000
    assert len(outcome.traceback) < 20_000


def test_an_error_that_no_message_holds_is_made_presentable(end: KernelEnd) -> None:
    outcome = end.run(entry=f"{HERE}:Surrogate")
    assert outcome.error.code == "invalid_request"
    assert outcome.error.message == "half \\ud83d"
    assert outcome.error.param == "x\\udc00"
    assert "details.a is a set" in outcome.error.details["dropped"]


def test_a_full_disk_may_pass(end: KernelEnd) -> None:
    outcome = end.run(entry=f"{HERE}:Full")
    assert (outcome.error.code, outcome.error.retryable) == ("disk_full", True)


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        ("object", "outputs.it.is is a object"),
        ("huge", "bytes as JSON, over"),
        ("deep", "nested deeper than 64"),
        ("list", "returned a list"),
    ],
)
def test_outputs_that_no_json_holds_fail_the_job(end: KernelEnd, odd: str, what: str) -> None:
    outcome = end.run([{"do": "return", "odd": odd}])
    assert outcome.error.code == "program_failed"
    assert what in outcome.error.message
    assert len(outcome.error.message) < 400


def test_odd_numbers_and_texts_are_written_as_texts(end: KernelEnd) -> None:
    outcome = end.run([{"do": "return", "odd": "nan"}])
    assert outcome == msg.Returned({"loss": "NaN", "bound": "-Infinity"})


def test_half_characters_are_escaped(end: KernelEnd) -> None:
    outcome = end.run([{"do": "return", "odd": "surrogate"}])
    assert outcome == msg.Returned({"text": "half \\ud83d of it", "键\\udc00": 1})


def test_a_thread_left_running_does_not_hold_the_outcome(end: KernelEnd) -> None:
    assert end.run(entry=f"{HERE}:Leaver") == msg.Returned({"left": True})
    RELEASE.set()
    LEFT[0].join(10)
    assert isinstance(LEFT.pop(), threading.Thread)
    assert AFTERWARDS == ["Interrupted"]  # its context is closed
    AFTERWARDS.clear()


RELEASE = threading.Event()
LEFT: list[threading.Thread] = []
AFTERWARDS: list[str] = []


class Leaver:
    def run(self, ctx: Context) -> Any:
        def later() -> None:
            RELEASE.wait(10)
            try:
                ctx.emit("metric", {"late": True})
            except Interrupted as error:
                AFTERWARDS.append(type(error).__name__)

        LEFT.append(threading.Thread(target=later))
        LEFT[0].start()
        return {"left": True}


# telling


def test_a_flood_of_log_lines_is_counted(end: KernelEnd) -> None:
    steps = [{"do": "emit", "kind": "log", "value": {"message": "x"}, "count": 5000}]
    assert isinstance(end.run(steps, max_lines=100.0), msg.Returned)
    told = [e for e in end.events if "num_dropped" not in e.value]
    dropped = sum(e.value.get("num_dropped", 0) for e in end.events)
    assert 100 <= len(told) < 1000
    assert len(told) + dropped == 5000


def test_other_events_are_slowed_down_not_dropped(end: KernelEnd) -> None:
    steps = [{"do": "emit", "kind": "metric", "value": {}, "count": 450}]
    assert isinstance(end.run(steps, max_lines=400.0), msg.Returned)
    assert [e.value["i"] for e in end.events] == list(range(450))


@pytest.mark.parametrize(
    "step",
    [
        {"do": "emit", "kind": "", "value": {}},
        {"do": "emit", "kind": "k" * 65, "value": {}},
        {"do": "emit", "value": {"text": "x" * 70_000}},
        {"do": "progress", "done": float("nan")},
        {"do": "progress", "done": 1, "counts": {str(i): i for i in range(100)}},
    ],
)
def test_what_cannot_be_told_is_refused(end: KernelEnd, step: dict[str, Any]) -> None:
    assert end.run([step]).error.code == "invalid_request"


# results


def test_results_arrive_once_and_in_order_behind_a_window(end: KernelEnd) -> None:
    assert isinstance(end.run([{"do": "result", "num_results": 500}], max_results=7), msg.Returned)
    assert [(r.stream, r.key, r.order) for r in end.rows] == [
        ("output", f"r{i}", i) for i in range(500)
    ]


def test_the_window_of_results_blocks_until_they_are_kept(end: KernelEnd) -> None:
    held: list[msg.Results] = []

    def hold(message: Any) -> bool:
        if isinstance(message, msg.Results):
            held.append(message)
        return isinstance(message, msg.Results)

    end.on_message = hold
    end.begin([{"do": "result", "num_results": 12}], max_results=5)
    end.until(lambda _: sum(len(m.rows) for m in held) == 5)
    end.send(msg.Probe(1))  # answered at once, whatever the program waits for
    report = end.until(lambda m: isinstance(m, msg.Report))
    assert report.nonce == 1
    assert sum(len(m.rows) for m in held) == 5
    end.send(msg.Kept(5))
    end.until(lambda _: sum(len(m.rows) for m in held) == 10)
    end.send(msg.Kept(5))
    end.until(lambda _: sum(len(m.rows) for m in held) == 12)
    end.send(msg.Kept(2))
    assert isinstance(end.outcome(), msg.Returned)


def test_results_that_cannot_be_kept_fail_the_attempt(end: KernelEnd) -> None:
    def refuse(message: Any) -> bool:
        if isinstance(message, msg.Results):
            end.send(msg.Kept(0, error=DiskFull("no space").to_info()))
        return isinstance(message, msg.Results)

    end.on_message = refuse
    outcome = end.run([{"do": "result", "num_results": 3}])
    assert (outcome.error.code, outcome.error.retryable) == ("disk_full", True)


def test_results_of_an_earlier_attempt_are_not_made_again(end: KernelEnd) -> None:
    done = [("output", "r0"), ("output", "r2"), ("other", "r1")]
    end.run([{"do": "result", "num_results": 4}], done_keys=done)
    assert [r.key for r in end.rows] == ["r1", "r3"]


# checkpoints and the kernel's wishes


def test_a_counter_continues_exactly_where_its_checkpoint_was(
    end: KernelEnd, tmp_path: Path
) -> None:
    def give_way(message: Any) -> bool:
        if isinstance(message, msg.Checkpoint) and len(end.checkpoints) == 3:
            end.send(msg.GiveWay("room is needed"))
        return False

    end.on_message = give_way
    steps = [{"do": "count", "to": 1000, "every": 5}]
    assert end.run(steps) == msg.GaveWay()
    state = tmp_path / "checkpoint"
    state.write_bytes(end.checkpoints[-1])
    again_folder = tmp_path / "again"
    again_folder.mkdir()
    again = KernelEnd(again_folder)
    outcome = again.run(steps, attempt=2, checkpoint=str(state))
    again.close()
    assert outcome.outputs["count"] == 1000
    assert outcome.outputs["sum"] == 1000 * 1001 // 2
    first, second = outcome.outputs["resumed_at"]
    assert (first, second >= 15) == (0, True)


def test_a_checkpoint_comes_after_the_results_before_it(end: KernelEnd) -> None:
    order: list[str] = []

    def note(message: Any) -> bool:
        order.append(type(message).__name__)
        return False

    end.on_message = note
    end.run([{"do": "result", "num_results": 3}, {"do": "count", "to": 1}])
    assert order.index("Results") < order.index("Checkpoint")


class BadCheckpoints:
    def run(self, ctx: Context) -> Any:
        inside = Path(ctx.scratch) / "state"
        inside.write_text("x")
        (Path(ctx.scratch) / "link").symlink_to("/etc/passwd")
        refused = []
        for path in ("/etc/passwd", "no-such", "link", "../stderr.log", ctx.scratch, "\0"):
            try:
                ctx.checkpoint(path)
            except InvalidRequest as error:
                refused.append(error.param)
        ctx.checkpoint("state")
        return {"refused": refused}


def test_only_plain_files_of_the_scratch_folder_are_checkpoints(
    end: KernelEnd, tmp_path: Path
) -> None:
    (tmp_path / "stderr.log").write_text("ours")
    outcome = end.run(entry=f"{HERE}:BadCheckpoints")
    assert outcome.outputs == {"refused": ["path"] * 6}
    assert end.checkpoints == [b"x"]


class Hopeful:
    def run(self, ctx: Context) -> Any:
        (Path(ctx.scratch) / "s").write_text("x")
        try:
            ctx.checkpoint("s")
        except LLMOSError as error:
            return {"code": error.code}
        return {}


@pytest.mark.parametrize("flagged", [True, False])
def test_a_checkpoint_that_fails_is_raised(end: KernelEnd, flagged: bool) -> None:
    def refuse(message: Any) -> bool:
        if isinstance(message, msg.Checkpoint):
            end.send(msg.Kept(checkpoint=flagged, error=DiskFull("no space").to_info()))
        return isinstance(message, msg.Checkpoint)

    end.on_message = refuse
    assert "disk_full" in str(end.run(entry=f"{HERE}:Hopeful"))


class Gatherer:
    def run(self, ctx: Context) -> Any:
        ctx.result("output", "a", 0, b"x")
        try:
            return {"read": Path(ctx.gather("output")).read_text()}
        except LLMOSError as error:
            return {"code": error.code}


def test_results_are_gathered_once_they_are_durable(end: KernelEnd, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x\n")

    def gather(message: Any) -> bool:
        if isinstance(message, msg.Gather):
            assert [row.key for row in end.rows] == ["a"]
            assert message.stream == "output"
            end.send(msg.Gathered(str(path)))
        return isinstance(message, msg.Gather)

    end.on_message = gather
    assert end.run(entry=f"{HERE}:Gatherer") == msg.Returned({"read": "x\n"})


def test_what_cannot_be_gathered_is_raised(end: KernelEnd) -> None:
    def refuse(message: Any) -> bool:
        if isinstance(message, msg.Gather):
            end.send(msg.Gathered(error=DiskFull("no space").to_info()))
        return isinstance(message, msg.Gather)

    end.on_message = refuse
    assert end.run(entry=f"{HERE}:Gatherer") == msg.Returned({"code": "disk_full"})


class Restless:
    def run(self, ctx: Context) -> Any:
        raise Yielded


def test_giving_way_unasked_is_a_failure(end: KernelEnd) -> None:
    outcome = end.run(entry=f"{HERE}:Restless")
    assert outcome.error.code == "program_failed"


def test_a_polite_program_ends_when_told_to_stop(end: KernelEnd) -> None:
    end.begin([{"do": "emit", "kind": "here"}, {"do": "sleep", "seconds": 3600}])
    end.until(lambda m: isinstance(m, msg.Told))
    end.send(msg.GiveWay("cancelled", stop=True))
    assert end.outcome() == msg.Returned({"stopped": True})


class Stubborn:
    """Knows nothing of stopping: emits for ever."""

    def run(self, ctx: Context) -> Any:
        for i in itertools.count():
            ctx.emit("metric", {"i": i})
            ctx.progress(i)
        return {}


def test_a_stubborn_program_is_interrupted_after_the_grace(
    end: KernelEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.worker.signals.STOP_GRACE_S", 0.05)
    end.begin(entry=f"{HERE}:Stubborn")
    end.until(lambda m: isinstance(m, msg.Told))
    end.send(msg.GiveWay("cancelled by ada", stop=True))
    outcome = end.outcome()
    assert outcome.error.code == "cancelled"
    assert "cancelled by ada" in outcome.error.message


def test_a_wait_for_a_call_ends_when_told_to_stop(end: KernelEnd) -> None:
    end.answer = lambda request: None
    end.begin(entry=ONE_CALL)
    end.until(lambda m: isinstance(m, msg.Calls))
    end.send(msg.GiveWay("expired", stop=True))
    assert end.outcome().error.code == "cancelled"


def test_shutdown_ends_a_program_that_waits(end: KernelEnd) -> None:
    end.answer = lambda request: None
    end.begin(entry=ONE_CALL)
    end.until(lambda m: isinstance(m, msg.Calls))
    end.send(msg.Shutdown())
    end.thread.join(10)
    assert not end.thread.is_alive()


def test_a_spare_ends_on_shutdown(end: KernelEnd) -> None:
    end.send(msg.Probe(9))
    report = end.until(lambda m: isinstance(m, msg.Report))
    assert report.memory.rss_bytes > 1_000_000
    end.send(msg.Shutdown())
    end.thread.join(10)
    assert not end.thread.is_alive()


def test_a_spare_that_is_not_needed_warms_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed = threading.Event()
    monkeypatch.setattr("llmos.worker.program.WARM_AFTER_S", 0.0)
    monkeypatch.setattr("llmos.worker.program.WARM", ("no.such.module", "llmos.errors"))
    real = importlib.import_module

    def notice(name: str) -> Any:
        if name == "llmos.errors":
            warmed.set()
        return real(name)

    monkeypatch.setattr("llmos.worker.program.importlib.import_module", notice)
    end = KernelEnd(tmp_path)
    assert warmed.wait(10)
    assert end.run([{"do": "return", "outputs": {"x": 1}}]) == msg.Returned({"x": 1})
    end.close()


def test_a_second_run_is_a_violation(end: KernelEnd) -> None:
    end.begin([{"do": "sleep", "seconds": 3600}])
    end.begin([])
    outcome = end.outcome()
    assert isinstance(outcome, msg.Fatal)
    end.send(msg.Shutdown())


def test_a_kernel_that_goes_away_takes_the_worker_with_it(end: KernelEnd) -> None:
    end.begin([{"do": "sleep", "seconds": 3600}])
    end.channel.close()
    end.thread.join(10)
    assert end.died == [1]
