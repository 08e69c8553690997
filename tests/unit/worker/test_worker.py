"""The worker's loops, in threads over real sockets, with the echo driver."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Aborted, Failed, Finished, Tokens
from llmos.abi.inference import PrepareItem, Sampling, TextPrompt, TokensPrompt, Usage, WorkItem
from llmos.drivers.echo import VOCAB_SIZE, EchoDriver
from llmos.errors import PluginError
from llmos.ipc.blocking import BlockingChannel
from llmos.ipc.codec import kernel_codec, worker_codec
from llmos.worker.entry import load_entry
from llmos.worker.replica import ReplicaLoop
from llmos.worker.tokenizer import TokenizerLoop

SPEC = ReplicaSpec("mdl_1", "", "", "", 100, 2, 1)


def item(request_id: str, text: str = "abc", **script: object) -> WorkItem:
    return WorkItem(request_id, array("i", map(ord, text)).tobytes(), Sampling(), options=script)


class Wire:
    """The kernel's end, blocking: receives until what it was told to wait for has come."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = BlockingChannel(sock, kernel_codec())
        self.seen: list[object] = []

    def send(self, message: object) -> None:
        self._channel.send(message)

    def until(self, kind: type) -> object:
        while True:
            for message in self.seen:
                if isinstance(message, kind):
                    self.seen.remove(message)
                    return message
            self.seen += self._channel.receive(10.0)

    def events(self, num_terminal: int = 1) -> list[object]:
        found: list[object] = []
        while sum(isinstance(e, Finished | Failed) for e in found) < num_terminal:
            step = self.until(msg.Step)
            assert isinstance(step, msg.Step)
            found += step.events
        return found


@pytest.fixture
def wire() -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    loop = ReplicaLoop(BlockingChannel(theirs, worker_codec()), EchoDriver())
    thread = threading.Thread(target=loop.run)
    thread.start()
    end = Wire(ours)
    yield end
    end.send(msg.Shutdown())
    thread.join(10)
    assert not thread.is_alive()
    ours.close()
    theirs.close()


def test_a_replica_loads_answers_and_reports(wire: Wire) -> None:
    wire.send(msg.Load(SPEC))
    loaded = wire.until(msg.Loaded)
    assert isinstance(loaded, msg.Loaded)
    assert loaded.report.num_slots == 2
    wire.send(msg.Submit([item("r1", "你好🎉")]))
    events = wire.events()
    assert "".join(e.text for e in events if isinstance(e, Tokens)) == "你好🎉"
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == 3
    wire.send(msg.Probe(7))
    report = wire.until(msg.Report)
    assert isinstance(report, msg.Report)
    assert report.nonce == 7
    assert report.memory.rss_bytes > 1_000_000


def test_a_refused_item_fails_alone(wire: Wire) -> None:
    wire.send(msg.Load(SPEC))
    wire.send(msg.Submit([item("bad", nonsense=1), item("long", "x" * 200), item("good", "ok")]))
    ends = {e.request_id: e for e in wire.events(3) if not isinstance(e, Tokens)}
    assert ends["bad"].error.code == "unsupported_parameter"
    assert ends["long"].error.code == "context_length_exceeded"
    assert isinstance(ends["good"], Finished)


def test_a_failed_load_is_told_and_the_worker_lives(wire: Wire) -> None:
    broken = ReplicaSpec("m", "", "", "", 100, 2, 1, options={"load_error": "no such tensor"})
    wire.send(msg.Load(broken))
    refused = wire.until(msg.LoadError)
    assert isinstance(refused, msg.LoadError)
    assert refused.error.code == "load_failed"
    wire.send(msg.Load(SPEC))
    assert wire.until(msg.Loaded)


def suspended(wire: Wire) -> msg.Suspended:
    answer = wire.until(msg.Suspended)
    assert isinstance(answer, msg.Suspended)
    return answer


def test_a_suspended_request_goes_on_where_it_was(wire: Wire, tmp_path: Path) -> None:
    wire.send(msg.Load(msgspec.structs.replace(SPEC, snapshots=str(tmp_path))))
    slow, quick = item("slow", "你好🎉abc", delay_ms=60_000), item("quick", "ok")
    wire.send(msg.Submit([slow]))
    begun = wire.until(msg.Step)
    assert isinstance(begun, msg.Step)
    wire.send(msg.Suspend(["slow", "nobody"]))
    first, second = suspended(wire), suspended(wire)
    assert (first.request_id, second.request_id) == ("slow", "nobody")
    assert second.snapshot is None
    assert second.error is not None
    assert second.error.code == "not_found"
    assert first.error is None
    assert first.snapshot is not None
    wire.send(msg.Resume(slow, msgspec.structs.replace(first.snapshot, digest="sha256:0")))
    wire.send(msg.Submit([quick]))
    ends = {e.request_id: e for e in wire.events(2) if not isinstance(e, Tokens)}
    assert ends["slow"].error.code == "snapshot_rejected"
    assert isinstance(ends["quick"], Finished)
    wire.send(msg.Resume(slow, first.snapshot))
    wire.send(msg.Probe(1))
    report = wire.until(msg.Report)
    assert isinstance(report, msg.Report)
    wire.send(msg.Suspend(["slow"]))
    again = suspended(wire)
    assert again.snapshot is not None
    wire.send(msg.Abort(["slow"], "no more"))
    wire.send(msg.Probe(2))
    ended = wire.until(msg.Step)
    assert isinstance(ended, msg.Step)
    assert ended.events == [Aborted("slow", "no more", Usage(6, 1))]
    assert [str(path) for path in tmp_path.iterdir()] == [first.snapshot.path]


def test_a_request_that_cannot_be_suspended_goes_on(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wire.send(msg.Load(msgspec.structs.replace(SPEC, snapshots=str(tmp_path / "file"))))
    wire.send(msg.Submit([item("a", "abc", first_delay_ms=30)]))
    wire.send(msg.Suspend(["a"]))
    refused = suspended(wire)
    assert refused.snapshot is None
    assert refused.error is not None
    assert refused.error.code == "storage_error"
    assert isinstance(wire.events()[-1], Finished)


def test_a_suspended_request_goes_where_the_kernel_says(wire: Wire, tmp_path: Path) -> None:
    wire.send(msg.Load(SPEC))
    wire.send(msg.Submit([item("a", "abc", first_delay_ms=60_000)]))
    wire.send(msg.Suspend(["a"], str(tmp_path / "kept")))
    answer = suspended(wire)
    assert answer.snapshot is not None
    assert Path(answer.snapshot.path).parent == tmp_path / "kept"


def parked(wire: Wire) -> msg.Parked:
    answer = wire.until(msg.Parked)
    assert isinstance(answer, msg.Parked)
    return answer


def report(wire: Wire) -> msg.Report:
    wire.send(msg.Probe(1))
    answer = wire.until(msg.Report)
    assert isinstance(answer, msg.Report)
    return answer


def test_a_parked_replica_answers_probes_and_serves_again(wire: Wire) -> None:
    options = {"resident_bytes": 64 << 20, "park_bytes": 1 << 20}
    wire.send(msg.Load(msgspec.structs.replace(SPEC, options=options)))
    loaded = wire.until(msg.Loaded)
    assert isinstance(loaded, msg.Loaded)
    wire.send(msg.Park())
    answer = parked(wire)
    assert answer.error is None
    assert answer.memory.rss_bytes < loaded.report.memory.rss_bytes - (50 << 20)
    assert report(wire).health.ok
    wire.send(msg.Submit([item("early", "ok")]))
    (refused,) = wire.events()
    assert isinstance(refused, Failed)
    assert refused.error.code == "conflict"
    for message in (msg.Abort(["early"], "x"), msg.Pause(["early"]), msg.Unpause(["early"])):
        wire.send(message)
    wire.send(msg.Suspend(["early"]))
    assert suspended(wire).error is not None
    wire.send(msg.Unpark())
    back = wire.until(msg.Unparked)
    assert isinstance(back, msg.Unparked)
    assert back.memory.rss_bytes > answer.memory.rss_bytes + (50 << 20)
    wire.send(msg.Submit([item("late", "ok")]))
    assert isinstance(wire.events()[-1], Finished)


def test_a_replica_in_use_is_not_parked(wire: Wire) -> None:
    wire.send(msg.Park())
    nothing = parked(wire)
    assert nothing.error is not None
    wire.send(msg.Load(SPEC))
    wire.send(msg.Submit([item("a", "abc", first_delay_ms=100)]))
    wire.send(msg.Park())
    refused = parked(wire)
    assert refused.error is not None
    assert refused.error.code == "conflict"
    assert isinstance(wire.events()[-1], Finished)
    wire.send(msg.Park())
    assert parked(wire).error is None


def test_a_failed_unpark_is_told(wire: Wire) -> None:
    wire.send(msg.Load(msgspec.structs.replace(SPEC, options={"unpark_error": "folder gone"})))
    wire.send(msg.Park())
    assert parked(wire).error is None
    wire.send(msg.Unpark())
    failed = wire.until(msg.LoadError)
    assert isinstance(failed, msg.LoadError)
    assert (failed.error.code, failed.error.message) == ("load_failed", "folder gone")
    assert report(wire).health.ok


def test_an_unknown_word_of_a_load_script_is_refused(wire: Wire) -> None:
    wire.send(msg.Load(msgspec.structs.replace(SPEC, options={"resident_byte": 1})))
    refused = wire.until(msg.LoadError)
    assert isinstance(refused, msg.LoadError)
    assert "resident_byte" in refused.error.message


def test_a_worker_may_be_killed_while_it_loads() -> None:
    process, wire, sock = start_process()
    entry = "llmos.drivers.echo:EchoDriver"
    wire.send(msg.Hello(ABI_VERSION, "wrk_1", msg.WorkerRole.REPLICA, entry))
    wire.until(msg.Ready)
    options = {"load_kill": True, "resident_bytes": 1 << 20}
    wire.send(msg.Load(msgspec.structs.replace(SPEC, options=options)))
    assert process.wait(10) == -signal.SIGKILL
    sock.close()


def test_the_tokenizer_loop_answers_each_prompt_in_order() -> None:
    ours, theirs = socket.socketpair()
    loop = TokenizerLoop(BlockingChannel(theirs, worker_codec()))
    thread = threading.Thread(target=loop.run)
    thread.start()
    wire = Wire(ours)
    entry = "llmos.drivers.echo:make"
    wire.send(
        msg.Prepare(
            [
                PrepareItem("a", entry, "", TextPrompt("hé"), VOCAB_SIZE),
                PrepareItem("b", entry, "", TokensPrompt([0xD800]), VOCAB_SIZE),
                PrepareItem("c", "no.such:thing", "", TextPrompt("x"), 1),
            ]
        )
    )
    results = []
    while len(results) < 3:
        answer = wire.until(msg.PrepareResults)
        assert isinstance(answer, msg.PrepareResults)
        results += answer.results
    good, bad, missing = results
    assert isinstance(good, msg.PrepareSuccess)
    assert array("i", good.prepared.tokens).tolist() == [104, 233]
    assert isinstance(bad, msg.PrepareFailure)
    assert bad.error.code == "invalid_request"
    assert isinstance(missing, msg.PrepareFailure)
    assert missing.error.code == "plugin_error"
    wire.send(msg.Shutdown())
    thread.join(10)
    ours.close()
    theirs.close()


def test_what_no_message_holds_fails_its_prompt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.ipc.framing.MAX_FRAME_BYTES", 4096)
    ours, theirs = socket.socketpair()
    loop = TokenizerLoop(BlockingChannel(theirs, worker_codec()))
    thread = threading.Thread(target=loop.run)
    thread.start()
    wire = Wire(ours)
    entry = "llmos.drivers.echo:make"
    for name, text in (("large", "a" * 2000), ("small", "hi")):  # tokens are four bytes each
        wire.send(msg.Prepare([PrepareItem(name, entry, "", TextPrompt(text), VOCAB_SIZE)]))
    first, second = (wire.until(msg.PrepareResults) for _ in range(2))
    assert isinstance(first, msg.PrepareResults)
    assert isinstance(second, msg.PrepareResults)
    (large,), (small,) = first.results, second.results
    assert isinstance(large, msg.PrepareFailure)
    assert large.error.code == "payload_too_large"
    assert isinstance(small, msg.PrepareSuccess)
    wire.send(msg.Shutdown())
    thread.join(10)
    ours.close()
    theirs.close()


def test_an_entry_that_does_not_exist_says_so() -> None:
    with pytest.raises(PluginError, match=r"llmos\.nowhere"):
        load_entry("llmos.nowhere:x")


def test_no_garbage_is_looked_for_while_an_engine_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engine_of_a_test.py").write_text("import gc\nCOLLECTS = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_entry("engine_of_a_test:COLLECTS") is False
    assert gc.isenabled()


def start_process() -> tuple[subprocess.Popen[bytes], Wire, socket.socket]:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmos.worker", str(theirs.fileno()), str(os.getpid())],
        pass_fds=(theirs.fileno(),),
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    return process, Wire(ours), ours


def test_the_process_refuses_another_abi_and_exits() -> None:
    process, wire, sock = start_process()
    wire.send(msg.Hello(ABI_VERSION + 1, "wrk_1", msg.WorkerRole.TOKENIZER))
    fatal = wire.until(msg.Fatal)
    assert isinstance(fatal, msg.Fatal)
    assert fatal.error.code == "protocol_violation"
    assert process.wait(10) == 1
    sock.close()


def test_the_process_ends_with_its_kernel() -> None:
    process, wire, sock = start_process()
    wire.send(
        msg.Hello(ABI_VERSION, "wrk_1", msg.WorkerRole.REPLICA, "llmos.drivers.echo:EchoDriver")
    )
    ready = wire.until(msg.Ready)
    assert isinstance(ready, msg.Ready)
    assert ready.pid == process.pid
    sock.close()
    assert process.wait(10) == 1


def test_the_light_side_needs_no_torch_no_web_no_database() -> None:
    code = (
        "import sys, llmos.worker.__main__, llmos.drivers.echo;"
        "print([m for m in ('torch','transformers','pydantic','starlette','sqlalchemy') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
