"""Every command that asks a server: text for people, JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import KEY, MODEL, PROCESS, STATUS, Server, refusal, sse

HOSTILE = {**MODEL, "name": "p\x1b[31m", "architecture": "[red]x[/]"}


def ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


def test_ls(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models"] = ok({"models": [MODEL]})
    done = llmos("ls")
    assert done.code == 0
    header, row = done.out.splitlines()
    assert header.split()[0] == "MODEL"
    assert row.split()[0] == "pilot:1"
    assert "1.2 MB" in row
    assert llmos("ls", "--json").json["models"][0]["digest"] == MODEL["digest"]


def test_an_empty_list_is_empty_output_and_a_remark(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models"] = ok({"models": []})
    done = llmos("ls")
    assert (done.code, done.out) == (0, "")
    assert "llmos pull" in done.err
    assert llmos("ls", "--json").json == {"models": []}


def test_names_cannot_act_on_the_terminal(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models"] = ok({"models": [HOSTILE]})
    server.routes["GET /os/v1/models/x"] = ok(HOSTILE)
    assert "p\\x1b[31m:1" in llmos("ls").out
    shown = llmos("show", "x").out
    assert "\x1b" not in shown
    assert "[red]x[/]" in shown


def test_show(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models/pilot:1"] = ok(MODEL)
    rows = [line.split(None, 1) for line in llmos("show", "pilot:1").out.splitlines()]
    lines = {row[0]: row[-1] for row in rows}
    assert lines["ref"] == "pilot:1"
    assert lines["size_bytes"] == "1250000 (1.2 MB)"
    assert lines["created_ns"] == "2023-11-14 22:13:20 UTC"
    assert llmos("show", "pilot:1", "--json").json["source"] == MODEL["source"]


def test_rm_asks_unless_told(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models/pilot"] = ok(MODEL)
    server.routes["DELETE /os/v1/models/pilot:1"] = ok(MODEL)

    refused = llmos("rm", "pilot")
    assert refused.code == 1
    assert "--yes" in refused.err
    assert llmos("rm", "pilot", stdin="n\n", is_tty=True).code != 0
    assert all(r.method == "GET" for r in server.requests)

    assert llmos("rm", "pilot", "--yes").out == "removed pilot:1\n"
    assert llmos("rm", "pilot", stdin="y\n", is_tty=True).code == 0
    assert llmos("rm", "pilot", "-y", "--json").json["name"] == "pilot"


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_load_and_unload(llmos: Run, server: Server, verb: str) -> None:
    server.routes[f"POST /os/v1/models/pilot/{verb}"] = ok({"done": verb})
    said = {"load": "load\n", "unload": "unloaded pilot\n"}
    assert llmos(verb, "pilot").out == said[verb]
    assert llmos(verb, "pilot", "--json").json == {"done": verb}


def test_load_in_a_type(llmos: Run, server: Server) -> None:
    server.routes["POST /os/v1/models/pilot/load"] = ok({"done": "pilot:1 is loaded as int8"})
    assert llmos("load", "pilot", "--dtype", "int8").out == "pilot:1 is loaded as int8\n"
    assert server.body() == {"dtype": "int8"}
    done = llmos("load", "pilot", "--dtype", "int3")
    assert done.code == 2
    assert "int4" in done.err


def test_ps(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/processes"] = ok({"processes": [PROCESS]})
    assert "interactive" in llmos("ps").out
    assert server.requests[-1].url.query == b"state=live"
    assert llmos("ps", "--json").json == {"processes": [PROCESS]}


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("0", 0.0)]
)
def test_load_with_a_time_to_stay(llmos: Run, server: Server, given: str, seconds: float) -> None:
    server.routes["POST /os/v1/models/pilot/load"] = ok({"done": "load"})
    assert llmos("load", "pilot", "--keep-alive", given).code == 0
    assert server.body() == {"keep_alive_s": seconds}


def test_load_does_not_take_what_is_no_time(llmos: Run, server: Server) -> None:
    done = llmos("load", "pilot", "--keep-alive", "soon")
    assert done.code == 2
    assert "10m" in done.err
    assert server.requests == []


def test_pin(llmos: Run, server: Server) -> None:
    server.routes["POST /os/v1/models/pilot/pin"] = ok({"done": "kept"})
    server.routes["DELETE /os/v1/models/pilot/pin"] = ok({"done": "not kept"})
    assert llmos("pin", "pilot").out == "pinned pilot\n"
    assert llmos("pin", "pilot", "--json").json == {"done": "kept"}
    assert llmos("pin", "pilot", "--off").out == "unpinned pilot\n"
    assert [r.method for r in server.requests] == ["POST", "POST", "DELETE"]


def test_status(llmos: Run, server: Server, home: Path) -> None:
    server.routes["GET /os/v1/status"] = ok(STATUS)
    text = llmos("status").out
    assert text.startswith("not ready")
    assert "problem: no worker" in text
    assert "2 running, 1 queued (1 batch), policy fair" in text
    (home / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    assert llmos("status", "--json").json["url"] == "http://127.0.0.1:9"
    assert llmos("status", "--json").json["memory_budget_bytes"] == 6_000_000_000


def test_keys(llmos: Run, server: Server) -> None:
    server.routes["POST /os/v1/keys"] = ok({"key": KEY, "secret": "sk-1"})
    server.routes["GET /os/v1/keys"] = ok({"keys": [KEY, {**KEY, "revoked_ns": 5}]})
    server.routes["DELETE /os/v1/keys/alice"] = ok(KEY)
    added = llmos("key", "add", "alice", "--tenant", "t", "--max-class", "batch", "--weight", "2")
    assert added.out == "sk-1\n"
    assert server.body() == {
        "name": "alice",
        "tenant": "t",
        "role": "user",
        "max_class": "batch",
        "weight": 2.0,
    }
    assert llmos("key", "add", "a", "--tenant", "t", "--json").json["secret"] == "sk-1"
    assert [line.split()[-1] for line in llmos("key", "ls").out.splitlines()[1:]] == [
        "active",
        "revoked",
    ]
    assert llmos("key", "ls", "--json").json["keys"][0] == KEY
    assert llmos("key", "revoke", "alice").out == "revoked alice (key_1)\n"


def test_pull_prints_the_version_and_with_json_every_report(llmos: Run, server: Server) -> None:
    report = {"phase": "hash", "file": "f", "done_bytes": 1, "total_bytes": 2}
    body = sse(report, event="progress") + sse(MODEL, event="done")
    server.routes["POST /os/v1/models"] = lambda _: httpx.Response(200, content=body)
    assert llmos("pull", "hf:org/pilot", "--name", "mine").out.startswith("pilot:1  1.2 MB")
    assert server.body() == {"source": "hf:org/pilot", "name": "mine"}
    first, last = llmos("pull", "hf:org/pilot", "--json").lines
    assert first["progress"]["done_bytes"] == 1
    assert last["model"]["name"] == "pilot"


def test_quantize(llmos: Run, server: Server) -> None:
    report = {"phase": "quantize", "file": "", "done_bytes": 1, "total_bytes": 2}
    body = sse(report, event="progress") + sse({**MODEL, "dtype": "int8"}, event="done")
    server.routes["POST /os/v1/models/pilot/quantize"] = lambda _: httpx.Response(200, content=body)
    done = llmos("quantize", "pilot", "--to", "int8", "--as", "small")
    assert done.out.startswith("pilot:1  1.2 MB") and "int8" in done.out
    assert server.body() == {"to": "int8", "name": "small"}
    first, last = llmos("quantize", "pilot", "--to", "int4", "--json").lines
    assert (first["event"], last["event"]) == ("progress", "done")
    assert server.body() == {"to": "int4"}
    assert llmos("quantize", "pilot", "--to", "int3").code == 2
    assert llmos("quantize", "pilot").code == 2


def test_pull_of_a_path_is_a_file_source(llmos: Run, server: Server, tmp_path: Path) -> None:
    server.routes["POST /os/v1/models"] = httpx.Response(200, content=sse(MODEL, event="done"))
    assert llmos("pull", str(tmp_path)).code == 0
    assert server.body() == {"source": f"file:{tmp_path}"}


def test_an_error_is_one_line_and_a_hint(llmos: Run, server: Server) -> None:
    answer = refusal(404, "model_not_found", details={"near": ["pilot", "pilot-zh"]})
    server.routes["GET /os/v1/models/pilo"] = answer
    done = llmos("show", "pilo")
    assert done.code == 1
    assert done.out == ""
    assert done.err.splitlines() == [
        "error: it is model_not_found (model_not_found)",
        "hint: did you mean pilot, pilot-zh?",
    ]
    as_json = llmos("show", "pilo", "--json")
    assert as_json.out == ""
    assert as_json.error["code"] == "model_not_found"
    assert as_json.error["details"] == {"near": ["pilot", "pilot-zh"]}


def test_an_error_message_cannot_act_on_the_terminal(llmos: Run, server: Server) -> None:
    error = {"error": {"message": "no\x1b[2J [red]x[/]\nhint: lies", "code": "conflict"}}
    server.routes["GET /os/v1/status"] = httpx.Response(409, json=error)
    err = llmos("status").err
    assert err == "error: no\\x1b[2J [red]x[/]\\nhint: lies (conflict)\n"


def test_without_a_server_the_hint_says_how_to_start_one(llmos: Run) -> None:
    done = llmos("ls")
    assert done.code == 1
    assert "server_unreachable" in done.err
    assert "llmos serve" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("show",),
        ("show", "a", "b"),
        ("ls", "--nonsense"),
        ("key", "add", "a"),
        ("key", "add", "a", "--tenant", "t", "--role", "god"),
        ("serve", "--port", "many"),
        ("serve", "--set", "no-equals-sign"),
    ],
)
def test_wrong_usage_is_code_2(llmos: Run, args: tuple[str, ...]) -> None:
    done = llmos(*args)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "--help" in done.err
    as_json = llmos(*args, "--json")
    assert as_json.code == 2
    assert as_json.error["code"] == "usage"


def test_a_bug_keeps_its_traceback_but_not_in_json(
    llmos: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError("oops")

    server.routes["GET /os/v1/status"] = broken
    done = llmos("status")
    assert done.code == 1
    assert "Traceback" in done.err
    assert llmos("status", "--json").error["code"] == "internal_error"


def test_an_interrupt_is_code_130(llmos: Run, server: Server) -> None:
    def interrupted(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    server.routes["GET /os/v1/status"] = interrupted
    assert llmos("status").code == 130


def test_config_path_and_version_need_no_server(llmos: Run, home: Path) -> None:
    assert llmos("config", "path").out == f"{home}\n"
    assert llmos("config", "path", "--json").json == {"home": str(home)}
    assert set(llmos("version", "--json").json) == {"version", "python"}
    assert llmos("--version").out.startswith("llmos ")
