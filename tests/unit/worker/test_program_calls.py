"""What a program asks of the kernel: calls, in a window, and system calls."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest

from llmos.abi import worker as msg
from llmos.abi.inference import ChatPrompt
from llmos.abi.program import Answer, Context, Generate
from llmos.abi.syscall import ListModels, ModelList, ShowModel, WaitProcess
from llmos.errors import (
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
)
from tests.unit.worker.kernel_end import KernelEnd
from tests.unit.worker.test_program import ask, end

__all__ = ["end"]  # fixtures

HERE = "tests.unit.worker.test_program_calls"


def test_calls_are_answered_each_with_its_key(end: KernelEnd) -> None:
    steps = [{"do": "call", "num_calls": 300, "window": 16, "content": "答 {i}"}]
    outcome = end.run(steps)
    assert outcome.outputs["calls"] == {str(i): f"答 {i}" for i in range(300)}
    assert len({number for number, _ in end.calls}) == 300


def test_no_more_calls_are_open_than_the_window_holds(end: KernelEnd) -> None:
    open_now: set[int] = set()
    most = newest = 0

    def count(message: Any) -> bool:
        nonlocal most, newest
        if isinstance(message, msg.Calls):
            open_now.update(number for number, _ in message.calls)
            most = max(most, len(open_now))
            # one at a time, newest first
            newest = max(open_now)
            open_now.discard(newest)
            end.send(msg.Answers([(newest, Answer(text="ok"))]))
        return isinstance(message, msg.Calls)

    end.on_message = count
    # with one answer for each message, the window refills by one until the source is dry
    end.begin([{"do": "call", "num_calls": 40, "window": 100}], max_calls=8)
    end.until(lambda _: newest == 40)
    end.send(msg.Answers([(number, Answer(text="ok")) for number in open_now]))
    assert isinstance(end.outcome(), msg.Returned)
    assert most == 8


def test_a_failed_call_is_an_answer_with_an_error(end: KernelEnd) -> None:
    end.answer = lambda request: Answer(error=QueueFull("later").to_info())
    outcome = end.run([{"do": "call", "num_calls": 2, "window": 2}])
    assert outcome.outputs["calls"] == {"0": {"error": "queue_full"}, "1": {"error": "queue_full"}}


class OneCall:
    def run(self, ctx: Context) -> Any:
        return {"text": ctx.call(ask("hi")).text}


def slowly(text: str) -> Generate:
    time.sleep(0)  # the other threads' turn, just when places are being taken
    return ask(text)


class ThreadedCalls:
    """Eight threads at once, each with a loop of its own."""

    def run(self, ctx: Context) -> Any:
        found: dict[str, str] = {}

        def work(name: int) -> None:
            requests = ((i, slowly(f"{name}.{i}")) for i in range(25))
            for i, answer in ctx.calls(requests, 8):
                found[f"{name}.{i}"] = answer.text

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"num_right": sum(key == text for key, text in found.items())}


class OddCalls:
    def run(self, ctx: Context) -> Any:
        requests: list[tuple[str, Any]] = [
            ("good", ask("fine")),
            ("half", ask("\ud800")),
            ("none", "not a call"),
        ]
        answers = dict(ctx.calls(requests, 8))
        return {key: a.text if a.error is None else a.error.code for key, a in answers.items()}


class Abandoned:
    """Leaves a loop of calls in its middle; the next one is not confused by late answers."""

    def run(self, ctx: Context) -> Any:
        first = next(iter(ctx.calls(((i, ask(f"old {i}")) for i in range(50)), 4)))
        rest = [a.text for _, a in ctx.calls(((i, ask(f"new {i}")) for i in range(20)), 4)]
        return {"first": first[1].text[:3], "rest": sorted(rest)}


def test_one_call_raises_what_it_failed_with(end: KernelEnd) -> None:
    end.answer = lambda request: Answer(error=EngineFailed("broken").to_info())
    outcome = end.run(entry=f"{HERE}:OneCall")
    assert (outcome.error.code, outcome.error.message) == ("engine_failed", "broken")


def test_threads_of_a_program_share_the_window(end: KernelEnd) -> None:
    open_now: dict[int, Generate] = {}
    most = num_seen = 0

    def hold(message: Any) -> bool:
        """Nothing is answered before there is no room for more, or nothing more to come."""
        nonlocal most, num_seen
        if isinstance(message, msg.Calls):
            open_now.update(message.calls)
            num_seen += len(message.calls)
            most = max(most, len(open_now))
            if len(open_now) >= 8 or num_seen == 200:
                answers = [(n, Answer(text=_asked(g))) for n, g in open_now.items()]
                open_now.clear()
                end.send(msg.Answers(answers))
        return isinstance(message, msg.Calls)

    end.on_message = hold
    outcome = end.run(entry=f"{HERE}:ThreadedCalls", max_calls=8)
    assert outcome.outputs == {"num_right": 200}
    assert most == 8


def _asked(request: Generate) -> str:
    assert isinstance(request.prompt, ChatPrompt)
    return str(request.prompt.messages[0]["content"])


def test_a_call_that_no_message_holds_fails_alone(end: KernelEnd) -> None:
    outcome = end.run(entry=f"{HERE}:OddCalls")
    assert outcome.outputs == {
        "good": "fine",
        "half": "invalid_request",
        "none": "invalid_request",
    }


def test_late_answers_of_an_abandoned_loop_are_dropped(end: KernelEnd) -> None:
    outcome = end.run(entry=f"{HERE}:Abandoned")
    assert outcome.outputs == {"first": "old", "rest": sorted(f"new {i}" for i in range(20))}


def test_a_program_that_only_waits_says_so(end: KernelEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.worker.calls.IDLE_PERIOD_S", 0.1)
    end.answer = lambda request: None
    end.begin(entry=f"{HERE}:OneCall")
    end.until(lambda m: isinstance(m, msg.Waits))
    assert end.waits == [True]
    end.send(msg.Answers([(end.calls[0][0], Answer(text="at last"))]))
    assert end.outcome() == msg.Returned({"text": "at last"})


class AsksTheKernel:
    """A program that asks for a model, and is told that there is none of another."""

    def run(self, ctx: Context) -> dict[str, Any]:
        found = ctx.ask(ListModels())
        with pytest.raises(ModelNotFound):
            ctx.ask(ShowModel("nobody"))
        with pytest.raises(InvalidRequest, match="does not make the call"):
            ctx.ask(StopNobody())
        return {"models": len(found.models)}


class StopNobody(msgspec.Struct):
    """No system call."""


def test_system_calls_are_answered_by_their_results(end: KernelEnd) -> None:
    def reply(message: Any) -> bool:
        if not isinstance(message, msg.Asks):
            return False
        if isinstance(message.body, ListModels):
            end.send(msg.Replied(message.number, ModelList([])))
        else:
            end.send(msg.Replied(message.number, error=ModelNotFound("no").to_info()))
        return True

    end.on_message = reply
    assert end.run(entry=f"{HERE}:AsksTheKernel") == msg.Returned({"models": 0})


class AsksForEver:
    def run(self, ctx: Context) -> dict[str, Any]:
        return {"x": str(ctx.ask(WaitProcess("job_2")))}


def test_a_system_call_ends_with_the_job(end: KernelEnd) -> None:
    def stop(message: Any) -> bool:
        if isinstance(message, msg.Asks):
            end.send(msg.GiveWay("cancelled", stop=True))
        return isinstance(message, msg.Asks)

    end.on_message = stop
    ended = end.run(entry=f"{HERE}:AsksForEver")
    assert isinstance(ended, msg.Raised)
    assert ended.error.code == "cancelled"
