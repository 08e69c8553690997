"""The generator: the same text for the same seed, the split kept, nothing read from outside."""

from __future__ import annotations

import ast
import itertools
import random
import sys

import pytest

from tests.syntax import parse
from tools.pilot import corpus, grammar, paths, probes

GENERATOR = [
    *(paths.ROOT / "tools" / "pilot" / "topics").glob("*.py"),
    paths.ROOT / "tools" / "pilot" / "grammar.py",
    paths.ROOT / "tools" / "pilot" / "corpus.py",
]


def test_same_seed_same_text() -> None:
    assert corpus.digest("a", 200) == corpus.digest("a", 200)
    assert corpus.digest("a", 200) != corpus.digest("b", 200)


def test_documents_are_conversations_in_turn() -> None:
    for found in itertools.islice(corpus.documents("turns"), 300):
        if isinstance(found, str):
            assert found
            continue
        roles = [message.role for message in found if message.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message.content.strip() for message in found)
        assert all("{" not in m.content and "[" not in m.content for m in found)


@pytest.mark.parametrize("topic", corpus.TOPICS)
@pytest.mark.parametrize("language", corpus.LANGUAGES)
def test_right_answers_hold_what_is_expected(topic: str, language: grammar.Language) -> None:
    rng = random.Random(topic)
    for held_out in (False, True):
        for _ in range(60):
            drawn = corpus.exchange(rng, held_out=held_out, topic=topic, language=language)
            assert corpus.is_held_out(drawn.key) == held_out
            assert drawn.expected
            assert all(part in drawn.turns[-1][1] for part in drawn.expected)


def test_sums_are_right() -> None:
    rng = random.Random(3)
    seen = 0
    while seen < 200:
        answer = corpus.exchange(rng, topic="numbers").turns[0][1]
        if " = " in answer:
            left, _, value = answer.replace("×", "*").partition(" = ")
            a, sign, b = left.split()
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(
                value
            )
            seen += 1


def test_template_choices_nest_and_fill() -> None:
    rng = random.Random(0)
    said = {grammar.expand(rng, "[a[1|2]|b] {x}", x="y") for _ in range(100)}
    assert said == {"a1 y", "a2 y", "b y"}


def test_generator_uses_the_standard_library_and_opens_nothing() -> None:
    for path in GENERATOR:
        tree = parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "open", path
                continue
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                assert name.startswith("tools.pilot") or top in sys.stdlib_module_names, name
                assert top not in {"pathlib", "urllib", "http", "socket", "os", "io"}, name


def test_hand_written_prompts_are_many_and_different() -> None:
    for asked in (probes.ENGLISH, probes.CHINESE):
        assert len({prompt for prompt, _ in asked}) == len(asked) >= 40
