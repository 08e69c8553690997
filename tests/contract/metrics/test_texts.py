"""Against sacreBLEU, rouge-score and SQuAD's rules, on random texts."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import ndcg_score

from llmos.errors import InvalidRequest
from llmos.programs.metrics.answers import answer_scores, match
from llmos.programs.metrics.likelihood import Likelihood, likelihood_scores
from llmos.programs.metrics.ranking import CUTS, ranked_of, ranking_of, ranking_scores
from llmos.programs.metrics.rouge import NAMES, longest_common, rouge
from llmos.programs.metrics.score import value_of
from llmos.programs.metrics.translation import translation_scores
from llmos.programs.metrics.words import tokens_of

WORDS = ["a", "the", "cat", "Cats", "sat.", "on", "mat!", "12", "\n", "(dog)", "runs,"]
HAN = list("今天天气很好我们去公园玩吧。，")


def text(seed: int, words=WORDS, most=14, glue=" ") -> str:
    draws = random.Random(seed)
    return glue.join(draws.choice(words) for _ in range(draws.randint(0, most)))


@pytest.mark.parametrize("seed", range(40))
def test_rouge_is_rouge_scores(seed):
    said, right = text(seed), text(seed + 1000)
    theirs = RougeScorer(list(NAMES)).score(right, said)
    assert rouge(said, [right]) == pytest.approx({n: s.fmeasure for n, s in theirs.items()})


def test_of_several_references_the_best_counts():
    assert rouge("the cat", ["a dog", "the cat"])["rouge1"] == 1
    assert rouge("", ["a dog"]) == dict.fromkeys(NAMES, 0.0)


def test_rouge_reads_chinese_by_characters():
    assert tokens_of("今天GPT-4很好。") == ["今", "天", "gpt", "4", "很", "好"]
    assert rouge("今天很好", ["今天不好"])["rouge1"] == pytest.approx(0.75)
    assert rouge("今天很好", ["今天不好"])["rougeL"] == pytest.approx(0.75)


def test_the_longest_common_subsequence_is_that_of_the_table():
    draws = random.Random(7)
    for _ in range(200):
        a, b = ([draws.choice("abc") for _ in range(draws.randint(0, 12))] for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                best = max(table[i - 1][j], table[i][j - 1])
                table[i][j] = table[i - 1][j - 1] + 1 if x == y else best
        assert longest_common(a, b) == table[-1][-1]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("num_references", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_bleu_chrf_and_ter_are_sacrebleus(seed, num_references, language):
    words, glue = (HAN, "") if language == "zh" else (WORDS, " ")
    said = [text(seed * 100 + n, words, 20, glue) for n in range(12)]
    right = [
        [text(seed * 100 + n + 50 * k, words, 20, glue) or "x" for k in range(num_references)]
        for n in range(12)
    ]
    # half of the sentences are nearly right
    said = [right[n][0] + (said[n][:4] if n % 4 else "") if n % 2 else said[n] for n in range(12)]
    columns = [list(column) for column in zip(*right, strict=True)]
    found = {score.name: value_of(score) for score in translation_scores(said, right, language)}
    tokenize = "zh" if language == "zh" else "13a"
    assert found == pytest.approx(
        {
            "bleu": sacrebleu.corpus_bleu(said, columns, tokenize=tokenize).score,
            "chrf": sacrebleu.corpus_chrf(said, columns).score,
            "ter": sacrebleu.corpus_ter(
                said, columns, normalized=True, asian_support=language == "zh"
            ).score,
        }
    )


@pytest.mark.parametrize("said", ["", "x y", "the cat sat"])
def test_bleu_of_a_few_words_is_sacrebleus_too(said):
    found = {s.name: value_of(s) for s in translation_scores([said], [["the cat sat on it"]])}
    assert found["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu([said], [["the cat sat on it"]]).score
    )
    assert found["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf([said], [["the cat sat on it"]]).score
    )


def test_a_text_without_a_reference_is_refused():
    with pytest.raises(InvalidRequest, match="no reference"):
        translation_scores(["a", "b"], [["a"], []])
    with pytest.raises(InvalidRequest, match="no texts"):
        translation_scores([], [])


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("in the tower", ["eiffel tower", "tower"], 0, 2 / 3),
        ("", [], 1, 1),
        ("something", [""], 0, 0),
        ("the", ["a"], 1, 1),
        ("南京大学", ["《南京大学》"], 1, 1),
        ("位于南京的大学", ["南京大学"], 0, 4 / 11),
        ("1985年", ["1985 年"], 0, 1),
        ("Bach", ["巴赫"], 0, 0),
    ],
)
def test_answers_by_the_rules_of_squad_and_cmrc(said, right, exact, f1):
    found = match(said, right)
    assert (found.exact, found.f1) == (exact, pytest.approx(f1))


def test_answers_are_scored_by_their_mean():
    scores = answer_scores([match("a cat", ["cat"]), match("dog", ["cat"])])
    assert [(score.name, value_of(score)) for score in scores] == [
        ("f1", 0.5),
        ("exact_match", 0.5),
    ]
    with pytest.raises(InvalidRequest, match="no questions"):
        answer_scores([])


def ranked(order, relevant):
    return ranking_of(ranked_of(order, relevant), relevant)


@pytest.mark.parametrize("seed", range(10))
def test_ndcg_is_scikit_learns(seed):
    draws = np.random.default_rng(seed)
    gains = draws.integers(0, 4, 12)
    gains[0] = 1
    order = draws.permutation(12)
    right = {f"d{n}": float(g) for n, g in enumerate(gains)}
    found = ranked([f"d{n}" for n in order], right)
    scores = np.empty(12)
    scores[order] = -np.arange(12)
    for k in CUTS:
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score([gains], [scores], k=k))


def test_ranks_by_hand():
    found = ranked(["x", "a", "y", "b"], {"a": 1, "b": 1, "c": 1})
    assert found["mrr"] == 0.5
    assert found["recall@3"] == pytest.approx(1 / 3)
    assert found["precision@3"] == pytest.approx(1 / 3)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    scores = {s.name: value_of(s) for s in ranking_scores([found, ranked(["x"], {"x": 0})])}
    assert scores["mrr"] == 0.5, "a query without anything relevant is left out"
    with pytest.raises(InvalidRequest, match="no query"):
        ranking_scores([ranked(["x"], {})])
    with pytest.raises(InvalidRequest, match="twice"):
        ranked(["x", "x"], {"x": 1})


def test_perplexity_is_of_all_tokens_together():
    texts = [Likelihood(-math.log(8), 3, 6, 3), Likelihood(-math.log(2), 1, 2, 2)]
    found = {score.name: value_of(score) for score in likelihood_scores(texts)}
    assert found == pytest.approx(
        {
            "perplexity": 2.0,
            "nll_per_token": math.log(2),
            "bits_per_byte": 4 / 8,
            "bits_per_char": 4 / 5,
        }
    )
    with pytest.raises(InvalidRequest, match="nothing to predict"):
        likelihood_scores([Likelihood(0.0, 0, 1, 1)])
