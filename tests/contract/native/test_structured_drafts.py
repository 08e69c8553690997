"""Answers of a given form while a draft model guesses ahead: the same as without any guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.drafts import disturbed
from llmos.abi.driver import DraftSpec
from llmos.abi.events import Tokens
from llmos.abi.inference import Grammar, WorkItem
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused.draft import Draft
from llmos.drivers.native.fused.guessing import Ask, Speeds
from llmos.drivers.native.request import Request
from tests.unit.drivers.tiny import drive, make_item, text, token_ids

Load = Callable[..., NativeDriver]
FORCED = Grammar("regex", "the quick brown fox jumps over (you|me)")
SAID = {f"the quick brown fox jumps over {who}" for who in ("you", "me")}
FREE = Grammar("regex", "[a-z ]{40}")


@pytest.fixture(scope="session")
def stories(test_data: Path) -> Path:
    return test_data / "models" / "stories260k"


@pytest.fixture(scope="session")
def near(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> DraftSpec:
    folder = disturbed(stories, tmp_path_factory.mktemp("near") / "m", 0.1)
    return DraftSpec("near:1", str(folder), "sha256:near")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time it takes, as many tokens are guessed as there is room for."""
    monkeypatch.setattr(Draft, "_worth", lambda self, readers, depth, rows, speeds: (0.0, depth))


def asked(**fields: Any) -> list[WorkItem]:
    forms: list[dict[str, Any]] = [
        {"grammar": FORCED},
        {"grammar": FREE, "temperature": 0.9},
        {"logprobs": 3},
        {"logit_bias": [(300, 2.0)], "temperature": 0.9},
    ]
    return [
        make_item(f"r{n}", [1, 280 + n], seed=n, max_tokens=40, ignore_eos=True, **form, **fields)
        for n, form in enumerate(forms)
    ]


def told(driver: NativeDriver, items: list[WorkItem]) -> dict[str, Any]:
    said = {}
    for name, events in drive(driver, items).items():
        priced = [one for e in events if isinstance(e, Tokens) for one in e.logprobs or ()]
        said[name] = (token_ids(events), text(events), priced)
    return said


@pytest.mark.usefixtures("eager")
def test_answers_are_those_without_a_draft(stories: Path, load: Load, near: DraftSpec) -> None:
    options = {"guesses": False}
    plain = told(load(stories, context_length=256, options=options), asked())
    driver = load(stories, context_length=256, draft=near)
    assert told(driver, asked()) == plain
    assert driver.health().num_guessed > 0
    assert plain["r0"][1] in SAID
    assert len(plain["r2"][2]) == len(plain["r2"][0])


@pytest.mark.usefixtures("eager")
def test_what_must_come_is_asked_of_no_guesser(
    stories: Path, load: Load, near: DraftSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it news of how well the draft model guesses."""
    driver = load(stories, context_length=256, draft=near)
    asked_of_it: list[str] = []
    noted: list[str] = []
    guess, note = Draft.guess, Draft.note

    def guessing(self: Draft, asks: Sequence[Ask], room: int, speeds: Speeds) -> list[list[int]]:
        for ask in asks:
            grammar = ask.request.sampler.grammar
            assert grammar is None or grammar.forced(ask.count) == []
        asked_of_it.extend(ask.request.request_id for ask in asks)
        return guess(self, asks, room, speeds)

    def noting(self: Draft, request: Request, num_guessed: int, num_right: int) -> None:
        noted.append(request.request_id)
        note(self, request, num_guessed, num_right)

    monkeypatch.setattr(Draft, "guess", guessing)
    monkeypatch.setattr(Draft, "note", noting)
    forced = make_item("forced", [1, 280], grammar=FORCED, max_tokens=0)
    free = make_item("free", [1, 281], max_tokens=40, ignore_eos=True)
    events = drive(driver, [forced, free])
    assert text(events["forced"]) in SAID
    num_tokens = len(token_ids(events["forced"]))
    # once the prompt is read all but the choice must come, unless pieces are drawn another way
    assert asked_of_it.count("forced") < num_tokens / 2
    assert len(noted) <= len(asked_of_it)
    assert noted.count("forced") <= asked_of_it.count("forced")
    assert "free" in noted
