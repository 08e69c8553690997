"""Answers bound by a grammar, biased, and with their log-probabilities, in both engines."""

from __future__ import annotations

import json
import random
import re
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.schemas import is_valid, random_schema
from llmos.abi.events import Event, Failed, FinishReason, Tokens
from llmos.abi.inference import Grammar
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.text import grammar as grammar_module
from llmos.drivers.text.grammar import Grammars
from llmos.drivers.text.limits import GRAMMAR, GrammarLimits
from llmos.errors import InvalidRequest, PluginError
from tests.unit.drivers.tiny import (
    byte_fallback_tokenizer,
    byte_level_tokenizer,
    drive,
    finished,
    make_item,
    random_prompt,
    text,
    token_ids,
)

Load = Callable[..., NativeDriver]
ENGINES = ("fused", "torch")
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "colours"],
    "additionalProperties": False,
}


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


@pytest.fixture(params=ENGINES)
def driver(request: pytest.FixtureRequest, tiny: Path, load: Load) -> NativeDriver:
    return load(tiny, options={"engine": request.param}, context_length=256)


def logprobs(events: list[Event]) -> list[Any]:
    return [one for e in events if isinstance(e, Tokens) for one in e.logprobs or ()]


@given(seed=st.integers(0, 2**32), engine=st.sampled_from(ENGINES))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one driver for all
)
def test_random_schemas_are_kept(seed: int, engine: str, tiny: Path, load: Load) -> None:
    rng = random.Random(seed)
    wanted = [random_schema(rng) for _ in range(4)]
    driver = load(tiny, options={"engine": engine}, context_length=256)
    items = [
        make_item(
            str(i),
            random_prompt(i, 5),
            grammar=schema(one),
            temperature=rng.choice([0.0, 1.0, 2.0]),
            top_p=rng.choice([1.0, 0.5]),
            seed=seed,
        )
        for i, one in enumerate(wanted)
    ]
    events = drive(driver, items)
    for i, one in enumerate(wanted):
        if finished(events[str(i)]).reason is FinishReason.STOP:
            assert is_valid(text(events[str(i)]), one), (text(events[str(i)]), one)


def test_regex_and_lark(driver: NativeDriver) -> None:
    pattern = r"[a-c]{3}-(the|hot){1,2}\."
    items = [
        make_item("r", [5], grammar=Grammar("regex", pattern), temperature=1.0, seed=1),
        make_item("l", [5], grammar=Grammar("lark", 'start: x{2,3}\nx: "ab" | "cd"'), seed=2),
    ]
    events = drive(driver, items)
    assert re.fullmatch(pattern, text(events["r"]))
    assert finished(events["r"]).reason is FinishReason.STOP
    assert re.fullmatch("(ab|cd){2,3}", text(events["l"]))
    assert finished(events["l"]).reason is FinishReason.STOP


def test_neighbours_are_left_alone(driver: NativeDriver) -> None:
    plain = make_item("plain", random_prompt(1, 9), max_tokens=30, ignore_eos=True)
    alone = token_ids(drive(driver, [plain])["plain"])
    bound = make_item("bound", random_prompt(2, 9), grammar=schema(PERSON))
    beside = drive(driver, [bound, plain])
    assert token_ids(beside["plain"]) == alone
    assert is_valid(text(beside["bound"]), PERSON)


def test_guesses_change_nothing(tiny: Path, load: Load) -> None:
    """What a grammar demands is guessed, and every answer is as without guesses."""
    with_guesses = load(tiny, options={"engine": "fused"}, context_length=256)
    without = load(tiny, options={"engine": "fused", "guesses": False}, context_length=256)
    num_steps: dict[str, int] = {"with": 0, "without": 0}
    for temperature in (0.0, 1.0):
        items = [
            make_item(
                str(i),
                random_prompt(i, 5),
                grammar=schema(PERSON),
                temperature=temperature,
                seed=i,
                logprobs=2,
            )
            for i in range(3)
        ]
        found = []
        for name, one in (("with", with_guesses), ("without", without)):

            def count(number: int, name: str = name) -> None:
                num_steps[name] += 1

            found.append(drive(one, items, count))
        for i in map(str, range(3)):
            assert token_ids(found[0][i]) == token_ids(found[1][i])
            assert logprobs(found[0][i]) == logprobs(found[1][i])
    assert num_steps["with"] < num_steps["without"]


@pytest.mark.parametrize("num_before", [1, 4, 9])
def test_recomputed_and_suspended(driver: NativeDriver, tmp_path: Path, num_before: int) -> None:
    item = make_item(
        "a", random_prompt(3, 5), grammar=schema(PERSON), temperature=1.0, seed=4, logprobs=1
    )
    whole = drive(driver, [item])["a"]
    ids = token_ids(whole)
    before = array("i", ids[:num_before]).tobytes()
    again = drive(driver, [msgspec.structs.replace(item, generated=before)])["a"]
    assert token_ids(again) == ids[num_before:]
    driver.submit(item)
    said: list[Event] = []
    while len(token_ids(said)) < num_before:
        said += driver.step()
    snapshot = driver.suspend("a", str(tmp_path))
    driver.resume(item, snapshot)
    said += drive(driver)["a"]
    assert token_ids(said) == ids
    assert logprobs(said) == logprobs(whole)


def test_what_was_drawn_must_fit_the_grammar(driver: NativeDriver) -> None:
    item = make_item("a", [5], grammar=schema(PERSON))
    wrong = msgspec.structs.replace(item, generated=array("i", [7, 7]).tobytes())
    with pytest.raises(InvalidRequest) as raised:
        driver.submit(wrong)
    assert raised.value.param == "grammar"


def test_logprobs_are_the_models_own(driver: NativeDriver) -> None:
    """Of the logits as they are: penalties, bias, grammar and temperature change none of them."""
    asked = {"max_tokens": 12, "ignore_eos": True, "logprobs": 3}
    plain = drive(driver, [make_item("a", random_prompt(1, 6), **asked)])["a"]
    found = logprobs(plain)
    assert [one.drawn.token_id for one in found] == token_ids(plain)
    assert (
        b"".join(one.drawn.piece for one in found).decode(errors="replace").strip()
        == text(plain).strip()
    )
    for one in found:
        values = [other.logprob for other in one.top]
        assert values == sorted(values, reverse=True)
        assert one.top[0] == one.drawn  # it is greedy
        assert all(value <= 0 for value in values)
    first = found[0]
    for change in (
        {"temperature": 0.5, "seed": 1},
        {"logit_bias": [(first.drawn.token_id, -100.0)]},
        {"repetition_penalty": 1.5},
        {"grammar": Grammar("regex", "zebra")},
    ):
        other = drive(driver, [make_item("a", random_prompt(1, 6), **asked, **change)])["a"]
        assert logprobs(other)[0].top == first.top


def test_an_end_has_no_logprob(driver: NativeDriver) -> None:
    item = make_item("a", [5], logprobs=0, logit_bias=[(2, 100.0)])
    events = drive(driver, [item])["a"]
    assert token_ids(events) == [2]
    assert (logprobs(events), finished(events).reason) == ([], FinishReason.STOP)


def test_bias_forces_and_forbids(driver: NativeDriver) -> None:
    prompt = random_prompt(1, 6)
    free = token_ids(drive(driver, [make_item("a", prompt, max_tokens=1, ignore_eos=True)])["a"])
    items = [
        make_item("a", prompt, max_tokens=5, ignore_eos=True, logit_bias=[(77, 100.0)]),
        make_item("b", prompt, max_tokens=1, ignore_eos=True, logit_bias=[(free[0], -100.0)]),
    ]
    events = drive(driver, items)
    assert token_ids(events["a"]) == [77] * 5
    assert token_ids(events["b"]) != free


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": [(300, 1.0)]}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"grammar": Grammar("regex", "(")}, "grammar"),
        ({"grammar": Grammar("poem", "x")}, "grammar"),
    ],
)
def test_what_is_refused(driver: NativeDriver, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        driver.submit(make_item("a", [5], **fields))
    assert raised.value.param == param


def _nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        made = {"allOf": [{"anyOf": [made, {"type": "array", "items": made}]}] * 3}
    return made


HOSTILE: list[Grammar] = [
    schema({"$ref": "#"}),
    schema({"$ref": "http://127.0.0.1:9/x.json"}),
    schema({"type": "poem"}),
    schema({"type": "array", "uniqueItems": True}),
    schema({"allOf": [{"type": "integer"}, {"type": "string"}]}),
    schema(_nested(5)),
    schema({"type": "object", "properties": {f"k{i}": {"pattern": "a.*b"} for i in range(3000)}}),
    Grammar("json_schema", "{"),
    Grammar("json_schema", "[" * 30_000),
    Grammar("regex", "(?=a)b"),
    Grammar("regex", "x" * (GRAMMAR.source_chars + 1)),
    Grammar("lark", "start: missing"),
    Grammar("lark", "start: \x00"),
]


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(byte_level_tokenizer().to_str(), 300, [263])


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda g: f"{g.kind} {g.text[:50]!r}")
def test_hostile_grammars_are_refused_at_once(grammars: Grammars, hostile: Grammar) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest) as raised:
        grammars.check(hostile)
    assert raised.value.param == "grammar"
    assert len(raised.value.message) < 400
    assert time.process_time() - began < 2  # it is far less; others share the machine


def test_a_schema_that_is_only_itself_is_told_so_in_words(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="leads only back to itself"):
        grammars.check(schema({"$ref": "#"}))


EXPLODING: list[Grammar] = [
    Grammar("regex", "(a{1,1000}){1,1000}"),
    Grammar("regex", "(.*a.{40}b){1,40}"),
    schema({"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"}),
    schema({"enum": [f"v{i}" for i in range(9000)]}),
    schema({"type": "array", "items": {"type": "string"}, "minItems": 100_000}),
    Grammar("lark", 'start: x\nx: x x | "a" | ""'),
    Grammar("lark", "start: (a | b)+\na: /[ab]+/\nb: /[ab]*c?/"),
]


@pytest.mark.parametrize("exploding", EXPLODING, ids=lambda g: f"{g.kind} {g.text[:50]!r}")
def test_what_explodes_is_cut_short(driver: NativeDriver, exploding: Grammar) -> None:
    """It ends, in its grammar as far as it came, or with an error of its own; nobody else's."""
    plain = make_item("plain", [5], max_tokens=20, ignore_eos=True)
    item = make_item("a", [5], grammar=exploding, max_tokens=40, temperature=1.0, seed=3)
    began = time.process_time()
    try:
        driver.submit(item)
    except InvalidRequest:
        return
    events = drive(driver, [plain])
    assert time.process_time() - began < 20
    assert len(token_ids(events["plain"])) == 20
    end = events["a"][-1]
    if isinstance(end, Failed):
        assert end.error.param == "grammar"


def test_a_step_that_is_too_much_fails_its_request_alone(
    tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_module, "GRAMMAR", GrammarLimits(step_items=60))
    driver = load(tiny, fresh=True)
    ambiguous = Grammar("lark", 'start: x\nx: x x | "a" | "aa" | "aaa"')
    plain = make_item("plain", [5], max_tokens=20, ignore_eos=True)
    events = drive(driver, [make_item("a", [5], grammar=ambiguous, max_tokens=60), plain])
    end = events["a"][-1]
    assert isinstance(end, Failed)
    assert (end.error.code, end.error.param) == ("invalid_request", "grammar")
    assert len(token_ids(events["plain"])) == 20


def test_compiled_ones_are_kept_but_not_all(grammars: Grammars) -> None:
    for i in range(GRAMMAR.num_kept + 5):
        grammars.start(Grammar("regex", f"x{i}"))
    assert len(grammars._kept) == GRAMMAR.num_kept


def test_states_are_apart(grammars: Grammars) -> None:
    one, other = (grammars.start(Grammar("regex", "ab")) for _ in range(2))
    before = other.allowed().copy()
    tokenizer = byte_level_tokenizer()
    assert one.accept(tokenizer.token_to_id("a"))
    assert (other.allowed() == before).all()
    assert not (one.allowed() == before).all()


def test_without_llguidance_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(PluginError, match=r"pip install 'llmos\[structured\]'"):
        Grammars(byte_fallback_tokenizer().to_str(), 300, [2])
