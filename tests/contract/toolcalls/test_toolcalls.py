"""Parsers of tool calls: real conversations in every format, and what models write wrongly."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llmos.shapes.toolcalls import reader as reader_module
from llmos.shapes.toolcalls.formats import FORMATS, find_format, knows_tools
from llmos.shapes.toolcalls.parsers import PARSERS
from llmos.shapes.toolcalls.reader import Reader
from llmos.shapes.toolcalls.stream import Heard, Wanted, call_id, hear
from tests.unit.shapes.calls_written import UNMARKED, WRITERS

FILES = ("glaive_toolcall_en_demo.json", "glaive_toolcall_zh_demo.json")
Turn = tuple[str, Any, Wanted]


def streamed(pieces: Iterable[str], form: str, wanted: Wanted) -> Heard:
    reader = wanted.reader(form)
    assert reader is not None
    heard = Heard()
    for piece in pieces:
        heard.add(reader.push(piece))
    heard.add(reader.finish())
    heard.num_before = reader.num_before
    return heard


def turns(test_data: Path) -> list[Turn]:
    """What the assistant said, in text or calls, in 600 conversations."""
    found: list[Turn] = []
    for name in FILES:
        conversations = json.loads((test_data / "chat" / name).read_text(encoding="utf-8"))
        assert len(conversations) == 300
        for conversation in conversations:
            tools = json.loads(conversation["tools"] or "[]")
            names = [tool["name"] for tool in tools]
            for turn in conversation["conversations"]:
                if turn["from"] == "function_call":
                    value = json.loads(turn["value"])
                    calls = value if isinstance(value, list) else [value]
                    known = Wanted((*names, *(call["name"] for call in calls)))
                    found.append(("call", calls, known))
                elif turn["from"] == "gpt":
                    found.append(("text", turn["value"], Wanted((*names, "x"))))
    return found


@pytest.mark.data
@pytest.mark.parametrize("form", sorted(PARSERS))
def test_real_calls_whole_and_streamed(test_data: Path, form: str) -> None:
    rng = random.Random(form)
    num_calls = 0
    for kind, value, wanted in turns(test_data):
        if kind != "call":
            continue
        before = "" if form in UNMARKED else rng.choice(["", "Let me look, 好.\n"])
        text = before + WRITERS[form](value)
        heard = hear(text, form, wanted)
        assert heard.text == before.strip()
        said = [(call.name, json.loads(call.arguments)) for call in heard.calls]
        assert said == [(call["name"], call["arguments"]) for call in value]
        assert streamed(text, form, wanted) == heard
        cuts = sorted(rng.sample(range(len(text)), k=min(5, len(text))))
        pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert streamed(pieces, form, wanted) == heard
        num_calls += len(value)
    assert num_calls > 400


def in_pieces(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.data
@pytest.mark.parametrize("form", sorted(PARSERS))
def test_real_calls_in_pieces_of_many_sizes(test_data: Path, form: str) -> None:
    """All 600 conversations. Every size there is, and every cut: `exhaustive` below, by hand."""
    num_turns = 0
    for kind, value, wanted in turns(test_data):
        if kind == "call":
            text = WRITERS[form](value)
            heard = hear(text, form, wanted)
            for size in (2, 3, 5, 8, 13, 21, 34, 55, 89):
                assert streamed(in_pieces(text, size), form, wanted) == heard
            num_turns += 1
    assert num_turns > 400


def exhaustive(test_data: Path) -> dict[str, tuple[int, int]]:
    """By format: answers read whole, and streamed readings of them that agree: calls in pieces of
    every size and in two at every place, texts in pieces of 1 to 32 characters. Minutes. Raises
    AssertionError."""
    found = {}
    for form in sorted(PARSERS):
        num_turns = num_readings = 0
        for kind, value, wanted in turns(test_data):
            text, most = value, 32
            if kind == "call":
                text = WRITERS[form](value)
                most = len(text)
            heard = hear(text, form, wanted)
            ways = [in_pieces(text, size) for size in range(1, most + 1)]
            if kind == "call":
                ways += [[text[:cut], text[cut:]] for cut in range(len(text))]
            assert all(streamed(way, form, wanted) == heard for way in ways), text
            num_turns, num_readings = num_turns + 1, num_readings + len(ways)
        found[form] = (num_turns, num_readings)
    return found


@pytest.mark.data
@pytest.mark.parametrize("form", sorted(PARSERS))
def test_real_texts_are_no_calls(test_data: Path, form: str) -> None:
    texts = [turn for turn in turns(test_data) if turn[0] == "text"]
    for i, (_, text, wanted) in enumerate(texts):
        assert hear(text, form, wanted) == Heard(text)
        size = 1 if i % 4 == 0 else i % 16 + 2
        assert streamed(in_pieces(text, size), form, wanted) == Heard(text)
    assert len(texts) > 1000


@pytest.mark.data
@pytest.mark.parametrize("form", sorted(PARSERS))
def test_every_cut(test_data: Path, form: str) -> None:
    calls = [turn for turn in turns(test_data) if turn[0] == "call"][:: len(FILES) * 20]
    for _, value, wanted in calls:
        both = [*value, {"name": value[0]["name"], "arguments": {"quote": 'a"\\n{', "x": [1, {}]}}]
        text = WRITERS[form](both)
        heard = hear(text, form, wanted)
        assert len(heard.calls) == len(both)
        assert json.loads(heard.calls[-1].arguments) == both[-1]["arguments"]
        for cut in range(len(text)):
            assert streamed((text[:cut], text[cut:]), form, wanted) == heard


NAMES = Wanted(("f", "g"))
F: list[tuple[str, str]] = [("f", '{"a": 1}')]
EMPTY: list[tuple[str, str]] = [("f", "{}")]

ODD: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", F),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', "", EMPTY),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", F),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}}', "", F),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', "", [("f", '{"a": 1')]),
    ("hermes", '<tool_call>{"id": [1, {"name": 2}], "name": "f"}', "", EMPTY),
    ("hermes", "<tool_call>sorry</tool_call>", "<tool_call>sorry</tool_call>", []),
    ("hermes", "so: <tool_call>", "so: <tool_call>", []),
    ("hermes", '<tool_call>{"name": ""}', '<tool_call>{"name": ""}', []),
    ("hermes", '<tool_call>{"name": 3}', '<tool_call>{"name": 3}', []),
    ("hermes", "a < b <tool b\n", "a < b <tool b\n", []),
    ("hermes", 'x\n<tool_call>{"name": "f"}</tool_call>\ny\n', "xy\n", EMPTY),
    ("hermes", '<tool_call>{"name": "unknown"}</tool_call>', "", [("unknown", "{}")]),
    ("hermes", "", "", []),
    ("glaive", '<functioncall> {"name": "f", "arguments": {"a": 1}}', "", F),
    ("glaive", "<functioncall> {\"name\": \"f\", \"arguments\": '{\"a\": 1}'", "", F),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a": 1}', "", F),
    ("mistral", '[TOOL_CALLS]f[CALL_ID]abc[ARGS]{"a": 1}', "", F),
    ("mistral", 'Hm. [TOOL_CALLS]f{"a": 1}[TOOL_CALLS]f{"a": 1}', "Hm.", F * 2),
    ("mistral", '[TOOL_CALLS]{"name": "f", "arguments": {"a": 1}}', "", F),
    ("mistral", "[TOOL_CALLS] []", "[TOOL_CALLS] []", []),
    ("llama3", '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', "", EMPTY),
    ("llama3", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
    ("llama3", '{"a": 1}', '{"a": 1}', []),
    ("llama3", '{"name": "f", "parameters": {"a": 1}};\nDone.', ";\nDone.", F),
    ("llama3", 'I call {"name": "f"}', 'I call {"name": "f"}', []),
    ("llama3", 'I call <|python_tag|>{"name": "f"}', "I call", EMPTY),
    ("pythonic", "[f(a=1)]", "", F),
    ("pythonic", "<|python_start|>[f(a=1)]<|python_end|>", "", F),
    ("pythonic", "[f(), g(b=[1, (2, 'x,)')], c=null, d=True)]", "",
     [("f", "{}"), ("g", '{"b": [1, [2, "x,)"]], "c": null, "d": true}')]),
    ("pythonic", "[h(a=1)]", "[h(a=1)]", []),
    ("pythonic", "[1, 2]", "[1, 2]", []),
    ("pythonic", "[f(a=open('x'))]", ")]", [("f", "{}")]),
    ("pythonic", "[f(a=1", "", [("f", '{"a": 1}')]),
    ("deepseek", "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
     '{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>', "Hm.", F),
    ("deepseek", "<｜tool▁calls▁begin｜>what", "<｜tool▁calls▁begin｜>what", []),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "said", "calls"), ODD, ids=[o[0] + o[1] for o in ODD])
def test_odd_answers(form: str, text: str, said: str, calls: list[tuple[str, str]]) -> None:
    heard = hear(text, form, NAMES)
    assert (heard.text, [(c.name, c.arguments) for c in heard.calls]) == (said, calls)
    assert streamed(text, form, NAMES) == heard
    for cut in range(len(text)):
        assert streamed((text[:cut], text[cut:]), form, NAMES) == heard


def test_arguments_leave_as_they_come() -> None:
    reader = NAMES.reader("hermes")
    assert reader is not None
    first = reader.push('Now.\n<tool_call>{"name": "f", "arg')
    assert (first.text, [delta.name for delta in first.calls]) == ("Now.", ["f"])
    pieces = [reader.push(piece).calls for piece in ('uments": {"a', '": "xy', 'z"}', "}")]
    said = ["".join(delta.arguments for delta in calls) for calls in pieces]
    assert said == ['{"a', '": "xy', 'z"}', ""]


def test_one_call_at_most() -> None:
    text = WRITERS["hermes"]([{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}])
    wanted = Wanted(("f", "g"), most=1)
    assert [call.name for call in hear(text, "hermes", wanted).calls] == ["f"]
    assert streamed(text, "hermes", wanted) == hear(text, "hermes", wanted)


def test_text_after_a_call_has_its_place() -> None:
    text = '<tool_call>{"name": "f"}</tool_call>then<tool_call>{"name": "g"}</tool_call>'
    assert hear(text, "hermes", NAMES).num_before == 1


def test_ids_are_always_the_same() -> None:
    ids = {call_id(r, i, f) for r in ("req_1", "req_2") for i in (0, 1) for f in ("x", "mistral")}
    assert len(ids) == 8
    assert call_id("req_1", 0, "x") == call_id("req_1", 0, "x")
    assert all(len(i) == 9 and i.isalnum() for i in ids if not i.startswith("call_"))


TEMPLATES = [
    ("{% if tools %}<tools></tools> <tool_call>{% endif %}", "hermes"),
    ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", "mistral"),
    ("{% if tools is defined %}{% endif %}'<｜tool▁calls▁begin｜>'", "deepseek"),
    ('tools {"name": function name, "parameters": dictionary', "llama3"),
    ("{{ tools }} [func_name1(params_name1=params_value1)]", "pythonic"),
    ("{{ tools }} <functioncall>", "glaive"),
    ("{{ tools }} <tool_call> <arg_key>", None),
    ("{{ tools }} <tool_call> <function=x>", None),
    ("{{ tools }}", None),
]


@pytest.mark.parametrize(("template", "form"), TEMPLATES)
def test_the_template_says_the_format(template: str, form: str | None) -> None:
    assert knows_tools(template)
    assert find_format(template) == form


def test_a_template_may_know_no_tools() -> None:
    assert not knows_tools("{{ messages }} toolsmith")
    assert set(FORMATS) == set(PARSERS) == set(WRITERS)


@pytest.mark.parametrize(
    ("form", "marker"),
    [
        ("hermes", "<tool_call>"),
        ("glaive", "<functioncall>"),
        ("mistral", "[TOOL_CALLS]"),
        ("llama3", "<|python_tag|>"),
    ],
)
def test_markers_without_end_are_text_in_the_end(
    form: str, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them could be read to the end of the answer, which takes the square of its length."""
    monkeypatch.setattr(reader_module, "MAX_REREAD_CHARS", 2000)
    taken = 0
    back = Reader.back

    def counted(reader: Reader) -> None:
        nonlocal taken
        at = reader.at
        back(reader)
        taken += at - reader.at

    monkeypatch.setattr(Reader, "back", counted)
    wanted = Wanted(("f",))
    text = (marker + '{"x":[') * 100
    heard = hear(text, form, wanted)
    assert not heard.calls
    assert heard.text == text
    assert 2000 < taken <= 2000 + len(text)
    assert streamed([text[i : i + 7] for i in range(0, len(text), 7)], form, wanted) == heard
