"""What trains the small models: honest lists, texts that say what they are said to say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tools.small import corpus, lexicon, tokenizer, train


@pytest.fixture
def fixed_torch() -> Iterator[None]:
    """As it was before, after a training."""
    threads, state = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(state)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_lists_say_what_they_mean_once(language: str) -> None:
    weights = lexicon.weights(language)
    assert len(weights) > 300
    assert {abs(weight) for weight in weights.values()} <= {0.4, 1.0, 2.0}
    assert not set(lexicon.neutral(language)) & set(weights)
    if language == "zh":
        assert not any(word.isascii() for word in weights)


def test_concepts_are_said_in_both_languages() -> None:
    for english, chinese in lexicon.concepts():
        assert english
        assert chinese
        assert all(phrase.isascii() for phrase in english)
        assert not any(phrase.isascii() for phrase in chinese)


def test_the_same_seed_makes_the_same_texts() -> None:
    def some(seed: int) -> list[corpus.Example]:
        rng = random.Random(seed)
        return [corpus.sentiment(rng) for _ in range(50)]

    assert some(1) == some(1) != some(2)
    pairs = [list(corpus.pairs(random.Random(3), 50)) for _ in range(2)]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_a_pair_does_not_mean_is_no_concept(language: str) -> None:
    """Else a model would have to learn that it says nothing."""
    side = 0 if language == "en" else 1
    meant = {phrase for concept in lexicon.concepts() for phrase in concept[side]}
    words = corpus.meaningless(language)
    assert len(words) > 300
    assert not set(words) & meant


def test_both_texts_of_a_pair_mean_the_same() -> None:
    """Every pair in two languages shares a concept."""
    phrases = [(set(english), set(chinese)) for english, chinese in lexicon.concepts()]
    pairs = list(corpus.pairs(random.Random(11), 400))
    mixed = [(one, other) for one, other in pairs if _is_chinese(other) and not _is_chinese(one)]
    assert len(mixed) > 50
    for one, other in mixed:
        said = f" {one.strip('.?')} "
        assert any(
            any(f" {phrase} " in said for phrase in english)
            and any(phrase in other for phrase in chinese)
            for english, chinese in phrases
        ), (one, other)


def _is_chinese(text: str) -> bool:
    return " " not in text and not text.isascii()


def test_a_text_is_as_good_as_its_words() -> None:
    """Without noise there is one word, and nothing turns it round."""
    rng, seen = random.Random(5), set()
    weights = lexicon.weights("en") | lexicon.weights("zh")
    for _ in range(300):
        example = corpus.sentiment(rng, 0.0)
        word = example.text.strip(" .!。！…")
        assert (example.good > 0.5) == (weights[word] > 0)
        seen.add(word)
    assert len(seen) > 150


def test_a_negation_turns_a_text_round() -> None:
    rng = random.Random(7)
    examples = [corpus.sentiment(rng) for _ in range(2000)]
    assert 0.35 < sum(example.good > 0.5 for example in examples) / len(examples) < 0.65
    assert any("not " in example.text for example in examples)


def test_words_are_tokens_and_what_is_none_is_in_pieces() -> None:
    text = tokenizer.make()
    assert text.encode("A masterful film!").tokens == [
        "[CLS]", "▁a", "▁masterful", "▁film", "▁!", "[SEP]",
    ]  # fmt: skip
    assert text.encode("服务很差").tokens == ["[CLS]", "▁", "服务", "很差", "[SEP]"]
    assert "▁n't" in text.encode("isn't").tokens
    assert text.encode("zqxj").tokens[1:-1] != ["[UNK]"]
    assert text.encode("🙂").ids[1:-1] == [text.encode("▁").ids[1], tokenizer.UNK_ID] or (
        tokenizer.UNK_ID in text.encode("🙂").ids
    )


@pytest.mark.usefixtures("fixed_torch")
def test_training_learns_and_gives_the_same_bits_again() -> None:
    recipe = replace(train.SENTIMENT, steps=30, batch_size=16, hidden_size=32)
    first, _ = train.sentiment(recipe)
    second, _ = train.sentiment(recipe)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("fixed_torch")
def test_vectors_of_one_meaning_come_closer(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = replace(train.EMBEDDING, steps=40, batch_size=32, hidden_size=32)
    trained, _ = train.embedding(recipe)
    raw, _ = train.embedding(replace(recipe, steps=0))
    text, rng = tokenizer.make(), random.Random(99)
    pairs = list(corpus.pairs(rng, 64))

    def hits(model: train.BertModel) -> int:
        with torch.inference_mode():
            first = train.embed(model, text, [one for one, _ in pairs])
            second = train.embed(model, text, [other for _, other in pairs])
        best = (first @ second.T).argmax(-1)
        return int((best == torch.arange(len(pairs))).sum())

    assert hits(trained) > hits(raw)
