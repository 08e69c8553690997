"""What models are told of tools, and grammars that make them call, in every format."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from benchmarks.schemas import is_valid
from llmos.abi.events import FinishReason
from llmos.abi.inference import ChatPrompt, Grammar, Prepared, PrepareItem
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.text.grammar import Grammars
from llmos.drivers.text.prepare import make
from llmos.drivers.text.tools import in_words, plan_tools
from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes.toolcalls.formats import FORMATS
from llmos.shapes.toolcalls.parsers import PARSERS
from llmos.shapes.toolcalls.stream import Wanted, hear
from tests.unit.drivers.test_prepare import make_folder
from tests.unit.drivers.tiny import (
    byte_fallback_tokenizer,
    drive,
    finished,
    make_item,
    make_model,
    text,
)

Load = Callable[..., NativeDriver]
SCHEMAS: dict[str, dict[str, Any]] = {
    "f": {
        "type": "object",
        "properties": {
            "word": {"enum": ["a", "the"]},
            "numbers": {"type": "array", "items": {"enum": [1, 22]}, "maxItems": 2},
        },
        "required": ["word", "numbers"],
        "additionalProperties": False,
    },
    "g": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
HI = [{"role": "user", "content": "the"}]
TEMPLATE = "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}"
SPECIALS = ["[TOOL_CALLS]", "<tool_call>", *FORMATS["deepseek"].special]
# to this tokenizer ▁ is a space: it writes DeepSeek's markers as special tokens or not at all
WAYS = [(form, way) for form in sorted(PARSERS) for way in (False, True)]
WAYS.remove(("deepseek", False))


def asked(**fields: Any) -> ChatPrompt:
    return ChatPrompt(HI, TOOLS, **fields)


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    added = tokenizer.get_added_tokens_decoder()
    return {token.content: i for i, token in added.items() if token.special}


@pytest.fixture(scope="session")
def with_specials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has some of the markers as special tokens."""
    folder = tmp_path_factory.mktemp("specials")
    make_model(folder)
    tokenizer = byte_fallback_tokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(("form", "special"), WAYS)
def test_who_must_call_calls(
    form: str, special: bool, tiny: Path, with_specials: Path, load: Load
) -> None:
    driver = load(with_specials if special else tiny, context_length=256)
    tokenizer = byte_fallback_tokenizer()
    if special:
        tokenizer.add_special_tokens(SPECIALS)
    plan = plan_tools(
        None, asked(tool_choice="required", tool_format=form), None, special_ids(tokenizer)
    )
    assert bool(plan.shown) == (special and form in {"mistral", "hermes", "deepseek"})
    one = plan_tools(
        None, asked(tool_choice="name:f", tool_format=form), None, special_ids(tokenizer)
    )
    items = [
        make_item(
            str(i), [5, i], grammar=grammar, shown=plan.shown, temperature=1.0, seed=i, max_tokens=0
        )
        for i, grammar in enumerate([plan.grammar, plan.grammar, one.grammar])
    ]
    events = drive(driver, items)
    for i in map(str, range(3)):
        heard = hear(text(events[i]), form, Wanted(tuple(SCHEMAS)))
        assert heard.calls, text(events[i])
        assert heard.text == ""
        whole = finished(events[i]).reason is FinishReason.STOP
        for call in heard.calls if whole else heard.calls[:-1]:
            assert is_valid(call.arguments, SCHEMAS[call.name]), call
    assert finished(events["2"]).reason is FinishReason.STOP
    assert [call.name for call in hear(text(events["2"]), form, Wanted(("f",))).calls] == ["f"]


def test_an_answer_or_a_call(tiny: Path, load: Load) -> None:
    """With a form for answers, it is of that form, or a call; both can be."""
    driver = load(tiny, context_length=256)
    tokenizer = byte_fallback_tokenizer()
    answer = Grammar("json_schema", '{"enum": ["the", "a"]}')
    grammar = plan_tools(None, asked(), answer, special_ids(tokenizer)).grammar
    biased = [[(tokenizer.token_to_id("<0x3C>"), bias)] for bias in (100.0, -100.0)]
    items = [
        make_item(str(i), [5], grammar=grammar, logit_bias=bias, max_tokens=0)
        for i, bias in enumerate(biased)
    ]
    events = drive(driver, items)
    assert hear(text(events["0"]), "hermes", Wanted(("f", "g"))).calls
    assert text(events["1"]) in {'"the"', '"a"'}
    with pytest.raises(UnsupportedParameter):
        plan_tools(None, asked(), Grammar("lark", "start: x"), special_ids(tokenizer))


def prepare(folder: Path, prompt: ChatPrompt, grammar: Grammar | None = None) -> Prepared:
    return make(str(folder)).prepare(PrepareItem("r", "", "", prompt, 300, grammar))


def told(prepared: Prepared) -> str:
    tokens = array("i", prepared.tokens).tolist()
    return str(byte_fallback_tokenizer().decode(tokens, skip_special_tokens=False))


def test_a_template_without_tools_is_told_in_words(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, chat_template=TEMPLATE)
    prepared = prepare(folder, asked())
    assert prepared.tool_format == "hermes"
    assert prepared.grammar is None
    assert '"name": "f"' in told(prepared)
    assert prepare(folder, asked(tool_choice="required")).grammar is not None
    none = prepare(folder, asked(tool_choice="none"))
    assert (none.tool_format, told(none)) == ("", "user:the")


def test_a_template_with_tools_tells_itself(tmp_path: Path) -> None:
    template = TEMPLATE + "{% if tools %}[TOOL_CALLS]{{ tools[1].function.name }}{% endif %}"
    folder = make_folder(tmp_path, chat_template=template)
    prepared = prepare(folder, asked())
    assert (prepared.tool_format, told(prepared)) == ("mistral", "user:the[TOOL_CALLS]g")
    assert told(prepare(folder, asked(tool_choice="none"))) == "user:the"


def test_an_unknown_format_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, chat_template=TEMPLATE + "{{ tools }} <arg_key>")
    with pytest.raises(UnsupportedParameter, match="tool_format"):
        prepare(folder, asked())
    assert prepare(folder, asked(tool_format="llama3")).tool_format == "llama3"


def test_a_grammar_is_checked_before_anything_runs(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, chat_template=TEMPLATE)
    fine = Grammar("regex", "a+")
    assert prepare(folder, ChatPrompt(HI), fine).grammar == fine
    with pytest.raises(InvalidRequest) as raised:
        prepare(folder, ChatPrompt(HI), Grammar("regex", "("))
    assert raised.value.param == "grammar"


def test_a_conversation_with_calls_in_words() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    made = in_words(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "7", "tool_call_id": "x"},
        ],
        TOOLS,
    )
    assert [message["role"] for message in made] == ["system", "assistant", "user"]
    assert made[0]["content"].startswith("Be brief.\n\nYou may call")
    assert json.dumps(TOOLS[0]) in made[0]["content"]
    heard = hear(made[1]["content"], "hermes", Wanted(("f",)))
    assert [(c.name, c.arguments) for c in heard.calls] == [("f", '{"a": 1}')]
    assert made[2]["content"] == "<tool_response>\n7\n</tool_response>"


@pytest.mark.parametrize(
    ("regex", "answer"),
    [
        (r"a\/b", "a/b"),
        ("a/b", "a/b"),
        (r"a[\/]b", "a/b"),
        (r"a\\/b", "a\\/b"),
        ("a\n/", "a\n/"),
        ("a\\\nb", "a\nb"),
    ],
)
def test_a_regular_expression_beside_tools_may_have_slashes(
    with_specials: Path, regex: str, answer: str
) -> None:
    plan = plan_tools(None, asked(tool_format="hermes"), Grammar("regex", regex), {})
    assert plan.grammar is not None
    source = (with_specials / "tokenizer.json").read_text()
    tokenizer = Tokenizer.from_str(source)
    state = Grammars(source, tokenizer.get_vocab_size(), []).start(plan.grammar)
    pieces = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in answer.encode()]
    assert all(map(state.accept, pieces)), state.error
    assert not state.error


@pytest.mark.parametrize(
    "parameters", [{"properties": ["a"]}, {"properties": {"a": {}}, "required": 5}]
)
def test_parameters_that_are_no_schema_of_an_object(parameters: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    prompt = ChatPrompt(HI, tools, tool_choice="required", tool_format="pythonic")
    with pytest.raises(InvalidRequest, match="parameters of f") as refusal:
        plan_tools(None, prompt, None, {})
    assert refusal.value.param == "tools"
