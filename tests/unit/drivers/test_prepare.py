"""Prompts to tokens."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.inference import ChatPrompt, PrepareItem, Prompt, TextPrompt, TokensPrompt
from llmos.drivers.text.prepare import TextPreparer, make
from llmos.errors import InvalidRequest, ModelRejected
from tests.unit.drivers.tiny import byte_fallback_tokenizer, byte_level_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content + '\n' }}{% endfor %}"
    "{% if tools %}{{ tools | length }}{% endif %}{% if add_generation_prompt %}a:{% endif %}"
)


def make_folder(folder: Path, tokenizer: Any = None, **config: Any) -> Path:
    (tokenizer or byte_fallback_tokenizer()).save(str(folder / "tokenizer.json"))
    fields = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture
def preparer(tmp_path: Path) -> TextPreparer:
    return make(str(make_folder(tmp_path, chat_template=TEMPLATE)))


def ids(preparer: TextPreparer, prompt: Prompt, vocab_size: int = 300) -> list[int]:
    item = PrepareItem("req_1", "entry", "folder", prompt, vocab_size)
    prepared = preparer.prepare(item)
    tokens = array("i")
    tokens.frombytes(prepared.tokens)
    assert prepared.num_tokens == len(tokens)
    assert prepared.request_id == "req_1"
    return tokens.tolist()


def chat(*contents: Any, **fields: Any) -> ChatPrompt:
    return ChatPrompt([{"role": "user", "content": c} for c in contents], **fields)


def test_text_has_the_special_tokens_of_its_tokenizer(preparer: TextPreparer) -> None:
    tokenizer = byte_fallback_tokenizer()
    assert ids(preparer, TextPrompt("the 你")) == tokenizer.encode("the 你").ids
    assert ids(preparer, TextPrompt("the"))[0] == 1


def test_a_chat_has_one_beginning(preparer: TextPreparer) -> None:
    found = ids(preparer, chat("the"))
    assert found.count(1) == 1
    assert found[0] == 1
    assert byte_fallback_tokenizer().decode(found) == "user:the\na:"


def test_tools_and_template_arguments(preparer: TextPreparer) -> None:
    text = byte_fallback_tokenizer().decode
    assert text(ids(preparer, chat("a", tools=[{}, {}], tool_format="hermes"))).endswith("2a:")
    closed = chat("a", template_kwargs={"add_generation_prompt": False})
    assert text(ids(preparer, closed)).endswith("a\n")
    with pytest.raises(InvalidRequest, match="messages"):
        ids(preparer, chat("a", template_kwargs={"messages": []}))


def test_parts_of_text_are_joined(preparer: TextPreparer) -> None:
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "好"}]
    assert ids(preparer, chat(parts)) == ids(preparer, chat("the 好"))


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ([{"type": "image_url", "where": "messages.1.content.0"}], "messages.1.content.0.type"),
        ([{"type": "image", "blob": 0, "where": "input.3.content.0"}], "input.3.content.0.type"),
        ([{"type": "text", "text": "a"}, {"type": "input_audio"}], "messages.1.content.1"),
        ([{"type": "text", "text": 3}], "messages.1.content.0"),
        (["a"], "messages.1.content.0"),
        (7, "messages.1.content"),
    ],
)
def test_other_parts_are_refused_by_place(preparer: TextPreparer, content: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ids(preparer, chat("a", content))
    assert caught.value.param == field


def test_token_ids_are_taken_as_they_are(preparer: TextPreparer) -> None:
    assert ids(preparer, TokensPrompt([299, 0, 5])) == [299, 0, 5]


@pytest.mark.parametrize("wrong", [-1, 300, 2**40, True, "7", 1.0, None])
def test_token_ids_out_of_the_vocabulary(preparer: TextPreparer, wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="vocabulary") as caught:
        ids(preparer, TokensPrompt([1, wrong]))
    assert caught.value.param == "prompt"


def test_empty_prompts(preparer: TextPreparer, tmp_path: Path) -> None:
    assert ids(preparer, TextPrompt("")) == [1]
    with pytest.raises(InvalidRequest) as caught:
        ids(preparer, TokensPrompt([]))
    assert caught.value.param == "prompt"
    folder = tmp_path / "none"
    folder.mkdir()
    without = make_folder(folder, byte_level_tokenizer(), bos_token=None)
    with pytest.raises(InvalidRequest):
        ids(make(str(without)), TextPrompt(""))
    with_bos = make_folder(folder, byte_level_tokenizer())
    assert ids(make(str(with_bos)), TextPrompt("")) == [byte_level_tokenizer().token_to_id("<s>")]


def test_half_a_surrogate_pair(preparer: TextPreparer) -> None:
    for prompt in (TextPrompt("a\ud83d"), chat("a\ud83d")):
        with pytest.raises(InvalidRequest):
            ids(preparer, prompt)


def test_without_a_template(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="/v1/completions"):
        ids(make(str(make_folder(tmp_path))), chat("a"))


def test_templates_of_many_names(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    preparer = make(str(make_folder(tmp_path, chat_template=named)))
    text = byte_fallback_tokenizer().decode
    assert text(ids(preparer, chat("a"))) == "d"
    assert text(ids(preparer, chat("a", tools=[{}], tool_format="hermes"))) == "t"
    (tmp_path / "chat_template.jinja").write_text("f", encoding="utf-8")
    assert text(ids(make(str(tmp_path)), chat("a"))) == "f"


def test_arguments_of_tool_calls_are_objects(tmp_path: Path) -> None:
    template = "{% for c in messages[0].tool_calls %}{{ c.function.arguments.x }}{% endfor %}"
    preparer = make(str(make_folder(tmp_path, chat_template=template)))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "abc"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = ids(preparer, ChatPrompt([message]))
    assert byte_fallback_tokenizer().decode(found) == "abc"
    assert call["function"] == {"name": "f", "arguments": '{"x": "abc"}'}


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelRejected, match=r"tokenizer\.json"):
        make(str(tmp_path))


def test_real_tokenizer(test_data: Path) -> None:
    folder = test_data / "models" / "stories260k"
    preparer = make(str(folder))
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    for text, expected in golden["encode_examples"].items():
        assert ids(preparer, TextPrompt(text), 512) == expected
