"""How results look: in a notebook, on a terminal, and when a model or a stranger wrote them."""

from __future__ import annotations

import html.parser
import json
from typing import Any

import msgspec
import pytest

from llmos.abi.inference import Usage
from llmos.abi.jobs import JobEvent
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import ProcessStory
from llmos.errors import InvalidRequest
from llmos.sdk.answer import Answer
from llmos.sdk.items import Datum, Embeddings, Inferred
from llmos.sdk.look import Beside, Evaluation, Run
from llmos.sdk.results import Choice, Chunk, Completion, ToolDelta
from llmos.sdk.shown import (
    Disk,
    Job,
    Jobs,
    Listed,
    Memory,
    Model,
    Process,
    Record,
    Replica,
    Secret,
    Status,
    Story,
)
from llmos.sdk.wire import from_wire, to_wire
from tests.unit.sdk.fake import DISK, KEY, MEMORY, MODEL, PROCESS, STATUS, STORY, Server
from tests.unit.sdk.test_calls import REPLICA

HOSTILE = "<script>alert(1)</script>\x1b[31m 你好 🙂 \u202e\"'><img src=x onerror=alert(1)>\x07"
CODES = ("state", "kind", "type", "role", "max_class", "service_class", "version", "program")
ALLOWED = {
    *("div", "style", "table", "thead", "tbody", "tr", "th", "td", "p", "h3", "h4", "span"),
    *("i", "b", "em", "ol", "ul", "li", "time", "svg", "path", "text", "circle", "pre"),
}

JOB: dict[str, Any] = {
    "job_id": "job_0193aaaaaaaaaaaaaaaaaaaaaaaa0000abcd",
    "principal": {"principal_id": "prn_1", "tenant_id": "ten_1", "name": "ann"},
    "spec": {"program": "evaluate", "name": "mine"},
    "state": "running",
    "created_ns": 1_700_000_000_000_000_000,
    "started_ns": 1_700_000_001_000_000_000,
    "epoch": 1,
    "reason": "runs",
    "progress": {"done": 3.0, "total": 12.0, "unit": "rows", "what": "measuring"},
    "outputs": {
        "model": "sentiment:1",
        "score": "accuracy",
        "scores": {
            "accuracy": {
                "value": 0.75,
                "low": 0.5,
                "high": 0.9,
                "higher_is_better": True,
                "against": 0.8,
                "difference": {"value": -0.05, "low": -0.1, "high": 0.02},
            }
        },
        "metrics": {"test": {"f1": 0.5}},
    },
}
REPORT: dict[str, Any] = {
    "labels": ["negative", "positive"],
    "confusion": [[5, 1], [2, 7]],
    "curves": {"roc": [{"label": "positive", "points": [[0, 0], [0.25, 0.5], [1, 1]]}]},
}


def poisoned(value: Any, key: str = "") -> Any:
    """The same with hostile words wherever words are anybody's."""
    if isinstance(value, dict):
        return {name: poisoned(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part, key) for part in value]
    return HOSTILE if isinstance(value, str) and key not in CODES else value


def events() -> list[JobEvent]:
    made = [{"step": n, "loss": 2.0 / (n + 1)} for n in range(30)]
    log = [JobEvent("job_1", n + 1, n, "metric", value) for n, value in enumerate(made)]
    return [*log, JobEvent("job_1", 31, 31, "output", {"step": 29, "text": HOSTILE})]


def run(job: Record) -> Run:
    made = Run(job)
    made.log.feed(events())
    return made


def answer(text: str) -> Answer:
    made = Answer(0.0)
    made.feed(Chunk(text, tool_calls=[ToolDelta(0, "c", text, '{"a": 1}')]), 1.0)
    made.feed(Chunk(text), 2.0)
    made.feed(Chunk(finish_reason="length", usage=Usage(3, 9)), 2.0)
    return made


def shown(make: Any) -> dict[str, Any]:
    """Everything there is to be shown, made of data that `make` was put through."""
    job = from_wire(make(JOB), Record)
    words = make("a word")
    failed = InvalidRequest(words)
    return {
        "model": from_wire(make(MODEL), Model),
        "process": from_wire(make(PROCESS), Process),
        "story": from_wire(make(STORY), Story),
        "replica": from_wire(make(REPLICA), Replica),
        "status": from_wire(make(STATUS), Status),
        "memory": from_wire(make(MEMORY), Memory),
        "disk": from_wire(make(DISK), Disk),
        "secret": from_wire({"key": make(KEY), "secret": "sk-llmos-1"}, Secret),
        "record": job,
        "job": Job(job, 12.5),
        "jobs": Jobs([job, job]),
        "models": Listed([from_wire(make(MODEL), Model)] * 3),
        "processes": Listed([from_wire(make(PROCESS), Process)] * 3),
        "replicas": Listed([from_wire(make(REPLICA), Replica)]),
        "events": Listed(JobEvent("j", 1, 1, "log", {"text": words}) for _ in range(2)),
        "mixed": Listed([1, words]),
        "nothing": Listed(),
        "completion": Completion(
            "c", words, 1, [Choice(0, words, "stop"), Choice(1, words, None)], Usage(1, 2)
        ),
        "inferred": Inferred(
            words,
            "classify",
            [
                Datum(0, {"label": words, "score": 0.9}, words),
                Datum(1, error=failed),
                Datum(2, words),
                Datum(3, {"other": words}),
            ],
            7,
            {},
        ),
        "embeddings": Embeddings(words, [[0.5] * 8], 3, {}),
        "answer": answer(words),
        "run": run(job),
        "evaluation": Evaluation(job, make(REPORT)),
        "beside": Beside(one=answer(words), two=words),
    }


class Tags(html.parser.HTMLParser):
    """Which tags there are, that all are closed, and that none does anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"href", "src", "srcset", "action", "xlink:href"}, name
            assert "url(" not in (value or "")
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if "style" not in self.open else ""


def read(markup: str) -> Tags:
    tags = Tags()
    tags.feed(markup)
    tags.close()
    assert tags.open == []
    return tags


NAMES = tuple(shown(lambda value: value))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_words_are_only_words(name: str) -> None:
    value = shown(poisoned if name != "nothing" else lambda v: v)[name]
    if name != "embeddings":
        markup = value._repr_html_()
        tags = read(markup)
        assert tags.seen <= ALLOWED, tags.seen - ALLOWED
        assert not set("\x1b\x07\u202e") & set(markup)
    text = repr(value)
    assert not set("\x1b\x07\u202e") & set(text)
    assert all(char.isprintable() or char == "\n" for char in text)


SAID = {
    "model": (["pilot:1", "512 tokens"], "<pilot:1  native"),
    "process": (["running", "interactive"], "<req_1  running  pilot:1"),
    "story": (["waiting", "row 2 of 4 after 500 ms"], "<req_1  running"),
    "replica": (["ready"], "<rep_1  ready  pilot:1"),
    "status": (["no worker", "1 batch"], "<LLMOS 0.1.0  not ready  2 running"),
    "memory": (["cuda:0", "snapshot pilot:1", "lacks"], "<memory  cpu"),
    "disk": (["models", "files"], "<disk"),
    "secret": (["alice"], "<key alice"),
    "record": (["3 of 12 rows measuring", "0.75 (0.5–0.9)"], "<job_0193"),
    "job": (["ends in", "12.5 s"], "<job_0193"),
    "jobs": (["evaluate"], "JOB "),
    "models": (["pilot:1"], "MODEL    ALIASES"),
    "processes": (["admitted"], "PROCESS  STATE"),
    "replicas": (["float32"], "MODEL    STATE"),
    "events": (["log"], "JOB_ID  NUMBER"),
    "mixed": (["a word"], "VALUE"),
    "nothing": (["nothing"], "[]"),
    "completion": (["a word", "choice 1"], "<'a word'  'a word'  a word · 1 + 2 tokens"),
    "inferred": (["0.900", "(invalid_request)"], "<a word  classify  4 inputs>\n0  a word 0.900"),
    "answer": (["9 tokens", "cut at the limit"], "<'a worda word'  calls a word  9 tokens"),
    "run": (["loss", "samples"], "<job_0193"),
    "evaluation": (["negative", "ROC", "7"], "<job_0193"),
    "beside": (["one", "two", "9 tokens"], "one:\n<'a word"),
}


@pytest.mark.parametrize("name", SAID)
def test_it_says_what_matters(name: str) -> None:
    value = shown(lambda v: v)[name]
    words = read(value._repr_html_()).words
    for said in SAID[name][0]:
        assert said in words, words
    assert repr(value).startswith(SAID[name][1]), repr(value)


def test_chinese_and_emoji_stay_as_they_are_and_align() -> None:
    models = Listed([from_wire({**MODEL, "name": name}, Model) for name in ("你好", "🙂", "ab")])
    lines = repr(models).splitlines()
    assert lines[1].startswith("你好:1  –")
    assert lines[2].startswith("🙂:1    –")
    assert "你好:1" in read(models._repr_html_()).words


def test_a_secret_is_in_the_key_and_not_in_what_is_shown() -> None:
    made = shown(lambda v: v)["secret"]
    assert made.secret == "sk-llmos-1"
    assert "sk-llmos-1" not in repr(made) + made._repr_html_()


def test_long_lists_say_how_much_is_left_out() -> None:
    many = Listed([from_wire(PROCESS, Process)] * 10_000)
    assert repr(many).splitlines()[-1] == "… 9980 more"
    markup = many._repr_html_()
    assert "… 9800 more" in markup
    assert len(markup) < 200_000


def test_curves_are_drawn_and_what_is_no_number_is_left_out() -> None:
    job = from_wire(JOB, Record)
    made = Run(job)
    assert "svg" not in read(made._repr_html_()).seen
    made.log.feed(events())
    made.log.feed([JobEvent("j", 40, 1, "metric", {"step": 40, "loss": float("nan")})])
    assert made.curves["loss"][:2] == [(0.0, 2.0), (1.0, 1.0)]
    assert {"svg", "path"} <= read(made._repr_html_()).seen
    assert "nan" not in made._repr_html_()


def test_an_evaluation_has_its_numbers_as_numbers() -> None:
    made = Evaluation(from_wire(JOB, Record), REPORT)
    assert made.scores == {"accuracy": 0.75}
    assert made.labels == ["negative", "positive"]
    assert made.confusion == [[5, 1], [2, 7]]
    assert "0.75 (0.5–0.9)" in repr(made)


@pytest.mark.parametrize(
    "report",
    [
        {"labels": 3, "confusion": "x", "curves": {"roc": 5}},
        {"labels": ["a"], "confusion": [["x"]], "curves": {"roc": [{"points": [[1], "p"]}]}},
        {"curves": {"roc": [7, {"points": None}], "new": [{"points": [[0, 0], [1, 1]]}]}},
    ],
)
def test_a_report_that_is_otherwise_is_shown_as_far_as_it_goes(report: dict[str, Any]) -> None:
    read(Evaluation(from_wire(JOB, Record), report)._repr_html_())


def test_they_are_what_they_were() -> None:
    version = from_wire(MODEL, ModelVersion)
    mine = from_wire(MODEL, Model)
    assert mine == version
    assert version == mine
    assert mine != from_wire({**MODEL, "name": "x"}, Model)
    assert mine != from_wire(PROCESS, Process)
    assert to_wire(mine) == to_wire(version)
    assert json.loads(msgspec.json.encode(mine)) == json.loads(msgspec.json.encode(version))
    assert hash(from_wire(PROCESS, Process)) == hash(from_wire(PROCESS, Process))
    story = from_wire(STORY, Story)
    assert isinstance(story, ProcessStory)
    assert msgspec.json.decode(msgspec.json.encode(story), type=ProcessStory) == story


def test_the_clients_give_them() -> None:
    server = Server({})
    from httpx import Response

    server.routes["GET /os/v1/models"] = Response(200, json={"models": [MODEL]})
    server.routes["GET /os/v1/processes/req_1"] = Response(200, json=STORY)
    with server.client() as client:
        models = client.models.list()
        assert "pilot:1" in models._repr_html_()
        assert isinstance(models[0], Model)
        assert isinstance(client.processes.show("req_1"), Story)
