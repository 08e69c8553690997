"""Processes of a real server with one row: who waits, who gives way, and what people are told."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.system.server import Server

OPTIONS = (
    *("--preload", "echo", "--set", "kernel.num_slots=1", "--set", "kernel.slice_tokens=4"),
    *("--set", "kernel.max_open_per_tenant=4"),
    *("--set", "kernel.lowest_share=0"),  # batch waits for as long as a test looks at it
)
ENDLESS = {"tokens": 4000, "delay_ms": 5}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """Echo in one row, slices of four tokens, four open requests a tenant."""
    running = Server(tmp_path_factory.mktemp("rows") / "home", *OPTIONS).start()
    failed_before = request.session.testsfailed
    try:
        yield running
        if request.session.testsfailed > failed_before:
            print(f"server log:\n{running.log[-8000:]}")
        assert running.stop() == 0, running.log
    finally:
        running.kill()


def body(service_class: str | None = None, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A request to echo; `deadline_ms` and `nice` go into `llmos`, the rest is its script."""
    own = {name: more.pop(name) for name in ("deadline_ms", "nice") if name in more}
    if service_class is not None:
        own["class"] = service_class
    messages = [{"role": "user", "content": "ab"}]
    return {
        "model": "echo",
        "messages": messages,
        "stream": stream,
        "max_tokens": 4000,
        "llmos": {**own, "driver": more},
    }


class Opened:
    """An accepted stream. It holds its iterator: one that is let go closes the connection."""

    def __init__(self, response: httpx.Response) -> None:
        self.id: str = response.headers["x-request-id"]
        self.chunks = (
            json.loads(line.removeprefix("data: "))
            for line in response.iter_lines()
            if line.startswith("data: {")
        )

    def begin(self) -> None:
        """Returns when the first chunk has come: then it has its row."""
        next(self.chunks)


@contextlib.contextmanager
def opened(client: httpx.Client, service_class: str, **more: Any) -> Iterator[Opened]:
    """A stream that the client leaves at the end."""
    wish = body(service_class, stream=True, **{**ENDLESS, **more})
    with client.stream("POST", "/v1/chat/completions", json=wish) as response:
        assert response.status_code == 200, response.read()
        yield Opened(response)


@contextlib.contextmanager
def one_waits(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """The ids of an interactive request in the only row and of a batch one behind it."""
    with opened(client, "interactive") as running:
        running.begin()
        with opened(client, "batch") as waiting:
            yield running.id, waiting.id


def until_empty(client: httpx.Client) -> None:
    """Whatever the test before left is gone."""
    for info in client.get("/os/v1/processes?state=live").json()["processes"]:
        client.get(f"/os/v1/processes/{info['process_id']}/wait?timeout_s=10")
    assert client.get("/os/v1/processes?state=live").json() == {"processes": []}


@pytest.fixture(autouse=True)
def _clean(client: httpx.Client) -> Iterator[None]:
    yield
    until_empty(client)


def new_key(server: Server, name: str, *options: str) -> str:
    made = server.cli("key", "add", name, "--tenant", f"of-{name}", *options, "--json")
    return str(json.loads(made.stdout)["secret"])


def story(client: httpx.Client, process_id: str) -> tuple[dict[str, Any], str]:
    """Its record, and all its reasons."""
    made = client.get(f"/os/v1/processes/{process_id}").json()
    return made["info"], "\n".join(d["reason"] for d in made["decisions"])


def test_ps_and_top_show_who_runs_and_who_waits(server: Server, client: httpx.Client) -> None:
    with one_waits(client) as (running, waiting):
        told = server.cli("ps").stdout.splitlines()
        (row,) = [line for line in told if line.startswith(waiting)]
        assert "waiting" in row
        assert "batch" in row
        assert running in "\n".join(told)
        for flags, expected in (
            (("--state", "waiting"), {waiting}),
            (("--mine", "--model", "echo", "--state", "live"), {running, waiting}),
            (("--model", "pilot"), set()),
            (("--tenant", "nobody"), set()),
        ):
            listed = json.loads(server.cli("ps", *flags, "--json").stdout)["processes"]
            assert {p["process_id"] for p in listed} == expected
        frame = server.cli("top", "--once", "--interval", "0.1").stdout
        for word in (waiting[-8:], running[-8:], "1/1", "batch 1", "policy fair", "tok/s"):
            assert word in frame
        seen = json.loads(server.cli("top", "--json", "--once", "--interval", "0.1").stdout)
        assert [p["process_id"] for p in seen["processes"]] == [running, waiting]
        assert seen["tokens_per_s"] > 0
        assert "1 running, 1 queued (1 batch), policy fair" in server.cli("status").stdout


def read_until(screen: io.FileIO, word: bytes, seen: bytearray) -> None:
    """Add what a terminal shows to `seen`, until the word is there."""
    while word not in seen:
        assert select.select([screen], [], [], 20)[0], seen
        seen += screen.read(65536) or b""


def test_top_fills_a_terminal_and_q_leaves_it(server: Server, client: httpx.Client) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with opened(client, "interactive") as running, io.FileIO(ours, "r+") as screen:
        running.begin()
        env = {**os.environ, "LLMOS_HOME": str(server.home), "TERM": "xterm"}
        command = [sys.executable, "-m", "llmos", "top", "--interval", "0.2"]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env
        ) as process:
            os.close(theirs)
            read_until(screen, b"k kill", seen := bytearray())
            screen.write(b"\x1b[B")  # down: choose it
            screen.write(b"k")
            read_until(screen, f"kill {running.id}? y/n".encode(), seen)
            screen.write(b"yq")
            with contextlib.suppress(OSError):  # how Linux says that the other end is closed
                read_until(screen, b"\x1b[?1049l and more", seen)
            assert process.wait(20) == 0
    for word in ("policy fair", running.id[-8:], "1/1", "interactive"):
        assert word.encode() in seen
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l")  # to its own screen and back
    assert "killed by admin" in story(client, running.id)[1]


def test_nice_lets_one_run_that_waited_and_why_tells_it(
    server: Server, client: httpx.Client
) -> None:
    with opened(client, "interactive") as running, opened(client, "batch", tokens=9) as waiting:
        first, second = running.id, waiting.id
        running.begin()
        assert server.cli("wait", second[-10:], "--timeout", "0.1").returncode == 124
        done = server.cli("nice", second[-10:], "-5", "--class", "interactive")
        assert "class interactive, nice -5" in done.stdout, done.stderr
        assert server.cli("wait", second, "--timeout", "20").returncode == 0
        told = server.cli("why", second[-10:]).stdout
        for word in ("accepted, queued behind 0", "set to class interactive, nice -5 by admin"):
            assert word in told
        assert "runs on rep_" in told
        assert "predicted" in told.splitlines()[-3]  # beside what it took
        assert told.splitlines()[-1].startswith("used ")
        assert "gave up its row: its slice is over" in story(client, first)[1]
    as_json = json.loads(server.cli("why", second, "--json").stdout)
    times_s = [d["after_s"] for d in as_json["decisions"]]
    assert times_s == sorted(times_s)
    assert as_json["info"]["state"] == "finished"


def test_kill_ends_what_logs_follow(server: Server, client: httpx.Client) -> None:
    with one_waits(client) as (running, waiting), ThreadPoolExecutor(1) as pool:
        follower = pool.submit(server.cli, "logs", waiting, "--follow")
        ambiguous = server.cli("kill", "req_")
        assert ambiguous.returncode == 1
        assert waiting in ambiguous.stderr
        assert running in ambiguous.stderr
        killed = server.cli("kill", waiting[-10:], running)
        assert killed.stdout == f"killed {waiting}\nkilled {running}\n"
        assert server.cli("wait", waiting).returncode == 1
        lines = follower.result(timeout=30).stdout.splitlines()
        assert "waiting" in lines[0]
        assert "aborted" in lines[-1]
        assert "killed by admin" in lines[-1]
    assert waiting not in server.cli("ps").stdout
    assert waiting in server.cli("ps", "--all", "--state", "ended").stdout
    assert server.cli("kill", waiting).returncode == 1
    assert server.cli("why", "no-such-thing").returncode == 1


def test_interactive_takes_the_row_of_batch_and_gives_it_back(client: httpx.Client) -> None:
    with opened(client, "batch", tokens=800) as stream:
        stream.begin()
        urgent = client.post("/v1/chat/completions", json=body("interactive")).json()
        assert urgent["choices"][0]["message"]["content"] == "ab"
        *_, last = stream.chunks
    _, reasons = story(client, stream.id)
    assert "gave up its row: a request of class interactive waits" in reasons
    assert "runs again" in reasons
    assert last["llmos"]["preemptions"] >= 1
    assert urgent["llmos"]["timing"]["queued_ms"] < last["llmos"]["timing"]["total_ms"]
    assert urgent["llmos"]["preemptions"] == 0


def test_how_far_predictions_were_off_is_a_metric(client: httpx.Client) -> None:
    assert client.post("/v1/chat/completions", json=body()).status_code == 200
    found = re.findall(
        r'llmos:cost_error\{model_name="echo:1"\} (\S+)', client.get("/metrics").text
    )
    assert len(found) == 1
    assert float(found[0]) > 0


def test_the_official_client_reads_the_effective_tier(openai_client: openai.OpenAI) -> None:
    for asked, effective in (
        ("flex", "flex"),
        ("priority", "priority"),
        ("default", "default"),
        ("auto", "default"),
    ):
        answer = openai_client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "x"}],
            service_tier=asked,  # type: ignore[arg-type]
        )
        assert answer.service_tier == effective


def test_who_cannot_meet_its_deadline_is_dropped_with_504(client: httpx.Client) -> None:
    with opened(client, "interactive") as running:
        running.begin()
        late = client.post("/v1/chat/completions", json=body("batch", deadline_ms=120))
    error = late.json()["error"]
    assert (late.status_code, error["code"]) == (504, "deadline_exceeded")
    info, reasons = story(client, late.headers["x-request-id"])
    assert (info["state"], info["started_ns"]) == ("failed", None)
    assert "deadline" in reasons


def test_a_tenant_has_its_limit_and_the_others_do_not_feel_it(
    server: Server, client: httpx.Client
) -> None:
    with (
        server.client(token=new_key(server, "alice")) as alice,
        contextlib.ExitStack() as four,
    ):
        held = [four.enter_context(opened(alice, "batch")) for _ in range(4)]
        fifth = alice.post("/v1/chat/completions", json=body())
        error = fifth.json()["error"]
        assert (fifth.status_code, error["code"]) == (429, "quota_exceeded")
        assert int(fifth.headers["retry-after"]) >= 1
        assert {"position", "reason", "eta_s"} <= set(error["details"])
        refused = fifth.headers["x-request-id"]
        assert error["details"]["request_id"] == refused
        assert "quota_exceeded: this tenant has 4 requests open" in story(alice, refused)[1]
        assert client.post("/v1/chat/completions", json=body()).status_code == 200
        for one in held:
            assert story(alice, one.id)[0]["principal"] == "alice"


def test_another_tenants_process_is_not_there(server: Server, client: httpx.Client) -> None:
    with (
        server.client(token=new_key(server, "bob")) as bob,
        opened(client, "interactive") as hidden,
    ):
        path = f"/os/v1/processes/{hidden.id}"
        answers = [
            bob.get(path),
            bob.get(f"{path}/wait?timeout_s=0"),
            bob.post(f"{path}/nice", json={"nice": 19}),
            bob.delete(path),
        ]
        assert [answer.status_code for answer in answers] == [404] * 4
        assert bob.get("/os/v1/processes").json() == {"processes": []}
        assert story(client, hidden.id)[0]["state"] == "running"


def test_a_key_of_class_batch_stays_in_it(server: Server) -> None:
    with server.client(token=new_key(server, "nightly", "--max-class", "batch")) as nightly:
        for wish in (body("interactive"), {**body(), "service_tier": "priority"}):
            denied = nightly.post("/v1/chat/completions", json=wish)
            assert (denied.status_code, denied.json()["error"]["code"]) == (
                403,
                "permission_denied",
            )
        assert nightly.post("/v1/chat/completions", json=body()).json()["service_tier"] == "flex"
        with opened(nightly, "batch") as mine:
            path = f"/os/v1/processes/{mine.id}/nice"
            assert nightly.post(path, json={"class": "default"}).status_code == 403
            assert nightly.post(path, json={"nice": 3}).status_code == 200
            assert nightly.get(path.removesuffix("/nice")).json()["info"]["nice"] == 3


def test_a_key_of_weight_four_is_served_four_times_as_much(server: Server) -> None:
    with (
        server.client(token=new_key(server, "light")) as light,
        server.client(token=new_key(server, "heavy", "--weight", "4")) as heavy,
        opened(light, "default") as slow,
    ):
        slow.begin()
        before = story(light, slow.id)[0]["completion_tokens"]
        wish = body("default", tokens=200, delay_ms=5)
        assert heavy.post("/v1/chat/completions", json=wish).status_code == 200
        served = story(light, slow.id)[0]["completion_tokens"] - before
        assert 200 / 6.5 < served < 200 / 2.5


def test_a_server_of_another_policy_says_so(own_server: Server) -> None:
    own_server.options = ("--preload", "echo", "--set", "kernel.policy=fifo")
    own_server.start()
    with own_server.client() as client:
        assert client.get("/os/v1/status").json()["policy"] == "fifo"
        assert client.post("/v1/chat/completions", json=body("batch")).status_code == 200
