"""Tokens guessed ahead, by lookup and by a draft model: the same answers, and guesses come true."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.drafts import cut_short, disturbed, random_weights
from llmos.abi.driver import DRAFTED_REQUESTS, DraftSpec
from llmos.abi.events import Event, Finished, FinishReason
from llmos.abi.inference import WorkItem
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused.draft import Draft
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.drivers.native.limits import LIMITS
from llmos.errors import EngineFailed, InvalidRequest, LoadFailed, UnsupportedParameter
from tests.unit.drivers.tiny import drive, finished, make_item, make_spec, text, token_ids

Load = Callable[..., NativeDriver]
OFF = {"guesses": False}


@pytest.fixture(scope="session")
def stories(test_data: Path) -> Path:
    return test_data / "models" / "stories260k"


@pytest.fixture(scope="session")
def near(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> DraftSpec:
    """Often right."""
    folder = disturbed(stories, tmp_path_factory.mktemp("near") / "m", 0.1)
    return DraftSpec("near:1", str(folder), "sha256:near")


@pytest.fixture(scope="session")
def short(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> DraftSpec:
    """Sometimes right."""
    folder = cut_short(stories, tmp_path_factory.mktemp("short") / "m", 4)
    return DraftSpec("short:1", str(folder), "sha256:short")


@pytest.fixture(scope="session")
def nonsense(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> DraftSpec:
    folder = random_weights(stories, tmp_path_factory.mktemp("nonsense") / "m")
    return DraftSpec("nonsense:1", str(folder), "sha256:nonsense")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time it takes, as many tokens are guessed as there is room for."""
    monkeypatch.setattr(Draft, "_worth", lambda self, readers, depth, rows, speeds: (0.0, depth))


def open_driver(folder: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    driver.load(make_spec(folder, **({"context_length": 256} | fields)), lambda part, what: None)
    return driver


def runner_of(driver: NativeDriver) -> FusedRunner:
    assert isinstance(driver._runner, FusedRunner)
    return driver._runner


def draft_of(driver: NativeDriver) -> Draft:
    draft = runner_of(driver)._draft
    assert draft is not None
    return draft


def items(num: int, **sampling: Any) -> list[WorkItem]:
    given = {"max_tokens": 60, "ignore_eos": True} | sampling
    return [
        make_item(f"r{i}", [1, *range(280 + i, 280 + 3 * i)], seed=i, **given) for i in range(num)
    ]


def answers(events: dict[str, list[Event]]) -> dict[str, tuple[list[int], str, Finished]]:
    return {name: (token_ids(e), text(e), end_of(e)) for name, e in events.items()}


def end_of(events: list[Event]) -> Finished:
    """Whatever of the prompt was cached."""
    end = finished(events)
    usage = msgspec.structs.replace(end.usage, cached_tokens=0)
    return msgspec.structs.replace(end, usage=usage)


@pytest.mark.parametrize("draft", ["near", "short", "nonsense"])
@pytest.mark.parametrize("num", [1, 3, 4, 9])
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 0.9},
        {"temperature": 1.0, "top_p": 0.9, "top_k": 30, "min_p": 0.02},
    ],
)
@pytest.mark.usefixtures("eager")
def test_answers_are_those_of_the_model_alone(
    stories: Path,
    load: Load,
    request: pytest.FixtureRequest,
    draft: str,
    num: int,
    sampling: dict[str, Any],
) -> None:
    plain = load(stories, context_length=256, num_slots=9, options=OFF)
    drafted = load(stories, context_length=256, num_slots=9, draft=request.getfixturevalue(draft))
    asked = items(num, **sampling)
    before = drafted.health()
    assert answers(drive(drafted, asked)) == answers(drive(plain, asked))
    after = drafted.health()
    guessed = after.num_guessed - before.num_guessed
    accepted = after.num_accepted - before.num_accepted
    assert plain.health().num_guessed == 0
    assert 0 <= accepted <= guessed
    if num < 8:
        assert guessed > 0
    if num < 8 and draft == "near":
        assert accepted > 0.3 * guessed
    if draft == "nonsense":
        assert accepted <= 0.2 * guessed


@pytest.mark.usefixtures("eager")
def test_fewer_steps_for_the_same_answer(stories: Path, near: DraftSpec) -> None:
    """What is gained does not hang on a clock: steps of the model are counted."""
    drafted = open_driver(stories, draft=near)
    num_steps = []
    events = drive(drafted, items(1), num_steps.append)
    assert len(token_ids(events["r0"])) == 60
    assert len(num_steps) < 30
    health = drafted.health()
    assert health.num_accepted >= 60 - len(num_steps) - 1
    drafted.unload()


def test_golden_text_with_lookup_and_with_a_draft(
    stories: Path, load: Load, near: DraftSpec
) -> None:
    golden = json.loads((stories / "golden.json").read_text(encoding="utf-8"))
    expected = golden["ids_after_bos_numpy_reference"][:199]
    for fields in ({}, {"draft": near}, {"options": OFF}):
        driver = load(stories, context_length=256, **fields)
        events = drive(driver, [make_item("golden", [1], max_tokens=199)])
        assert token_ids(events["golden"]) == expected


@pytest.mark.usefixtures("eager")
def test_a_stop_string_within_accepted_tokens(stories: Path, load: Load, near: DraftSpec) -> None:
    plain = load(stories, context_length=256, options=OFF)
    drafted = load(stories, context_length=256, draft=near)
    said = text(drive(plain, items(1))["r0"])
    for begin in range(10, 40, 3):
        asked = items(1, stop=[said[begin : begin + 4]])
        ours, theirs = answers(drive(drafted, asked)), answers(drive(plain, asked))
        assert ours == theirs
        assert ours["r0"][2].reason is FinishReason.STOP


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5, 6, 7, 11])
@pytest.mark.usefixtures("eager")
def test_the_last_token_is_never_guessed_beyond(
    stories: Path, load: Load, near: DraftSpec, max_tokens: int
) -> None:
    plain = load(stories, context_length=256, options=OFF)
    drafted = load(stories, context_length=256, draft=near)
    asked = items(3, max_tokens=max_tokens)
    ours = answers(drive(drafted, asked))
    assert ours == answers(drive(plain, asked))
    assert {len(ids) for ids, _, _ in ours.values()} == {max_tokens}


@pytest.mark.usefixtures("eager")
def test_suspend_and_resume_between_guesses(
    stories: Path, load: Load, near: DraftSpec, tmp_path: Path
) -> None:
    """Also on a replica without a draft: a snapshot knows nothing of guesses."""
    plain = load(stories, context_length=256, options=OFF)
    drafted = open_driver(stories, draft=near, snapshots=str(tmp_path))
    (item,) = items(1, temperature=0.8)
    whole = answers(drive(plain, [item]))["r0"]
    for other in (drafted, plain):
        drafted.submit(item)
        said = [event for _ in range(6) for event in drafted.step()]
        assert len(token_ids(said)) > 6  # guesses came true
        snapshot = drafted.suspend("r0")
        other.resume(item, snapshot)
        rest = drive(other)["r0"]
        assert token_ids(said) + token_ids(rest) == whole[0]
        assert end_of(rest) == whole[2]
    drafted.unload()


@pytest.mark.usefixtures("eager")
def test_pause_makes_room_and_goes_on(stories: Path, load: Load, near: DraftSpec) -> None:
    plain = load(stories, context_length=256, options=OFF)
    drafted = load(stories, context_length=256, num_slots=1, draft=near)
    first, second = items(2)
    whole = answers(drive(plain, [first, second]))
    drafted.submit(first)
    said = [event for _ in range(5) for event in drafted.step()]
    drafted.pause("r0")
    events = drive(drafted, [second])
    drafted.unpause("r0")
    rest = drive(drafted)["r0"]
    assert answers(events)["r1"] == whole["r1"]
    assert token_ids(said) + token_ids(rest) == whole["r0"][0]


@pytest.mark.usefixtures("eager")
def test_park_gives_back_the_draft_too(stories: Path, near: DraftSpec) -> None:
    drafted = open_driver(stories, draft=near)
    before = answers(drive(drafted, items(2)))
    alone = open_driver(stories)
    held, held_alone = drafted.memory(), alone.memory()
    assert held.weights_bytes > 1.9 * held_alone.weights_bytes
    assert held.kv_reserved_bytes == 2 * held_alone.kv_reserved_bytes  # 4 slots of each
    parked = drafted.park()
    assert (parked.weights_bytes, parked.kv_reserved_bytes, parked.kv_used_bytes) == (0, 0, 0)
    assert draft_of(drafted)._engine is None
    again = drafted.unpark()
    assert again.kv_reserved_bytes == held.kv_reserved_bytes
    guessed = drafted.health().num_guessed
    assert answers(drive(drafted, items(2))) == before
    assert drafted.health().num_guessed > guessed
    drafted.unload()
    alone.unload()


@pytest.mark.usefixtures("eager")
def test_a_prompt_is_read_in_bounded_chunks_and_its_beginning_found(
    stories: Path, near: DraftSpec
) -> None:
    drafted = open_driver(stories, draft=near)
    prompt = [1, *range(260, 260 + 200)]
    draft = draft_of(drafted)
    read: list[int] = []
    engine = draft._engine
    assert engine is not None
    forward = engine.forward

    def counted(pieces: Any) -> Any:
        read.append(sum(len(piece.tokens) for piece in pieces))
        return forward(pieces)

    engine.forward = counted  # type: ignore[method-assign]
    drive(drafted, [make_item("a", prompt, max_tokens=30, ignore_eos=True)])
    assert max(read) == LIMITS.draft_read_tokens
    assert sum(read) >= len(prompt)
    read.clear()
    drive(drafted, [make_item("b", prompt, max_tokens=30, ignore_eos=True)])
    assert sum(read) < len(prompt)
    drafted.unload()


@pytest.mark.usefixtures("eager")
def test_too_few_pages_leave_a_request_without_guesses(
    stories: Path, load: Load, near: DraftSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(stories, context_length=256, options=OFF)
    drafted = open_driver(stories, draft=near)
    pages, asked = draft_of(drafted)._pages, items(3)
    taken = pages.open("other", [7], (pages.num_pages - 8) * pages.page_tokens)
    assert taken is not None
    assert answers(drive(drafted, asked)) == answers(drive(plain, asked))
    assert drafted.health().num_guessed > 0
    assert pages.num_leases == 1
    blocked = pages.open("other", [7], 8 * pages.page_tokens)
    assert blocked is not None
    before = drafted.health().num_guessed
    assert answers(drive(drafted, asked)) == answers(drive(plain, asked))
    assert drafted.health().num_guessed == before
    drafted.unload()


@pytest.mark.usefixtures("eager")
def test_beyond_the_context_of_the_draft(
    stories: Path, load: Load, near: DraftSpec, tmp_path: Path
) -> None:
    small = Path(shutil.copytree(near.folder, tmp_path / "small"))
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    drafted = open_driver(stories, draft=DraftSpec("small:1", str(small), "sha256:small"))
    plain = load(stories, context_length=256, options=OFF)
    asked = items(2, max_tokens=120)
    assert answers(drive(drafted, asked)) == answers(drive(plain, asked))
    assert 0 < drafted.health().num_guessed < 100
    drafted.unload()


@pytest.mark.usefixtures("eager")
def test_a_draft_that_breaks_is_done_without(
    stories: Path, load: Load, near: DraftSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(stories, context_length=256, options=OFF)
    drafted = open_driver(stories, draft=near)
    engine = draft_of(drafted)._engine
    assert engine is not None
    drafted.submit(items(1)[0])
    said = [event for _ in range(5) for event in drafted.step()]

    def broken(pieces: Any) -> Any:
        raise EngineFailed("of no use")

    engine.forward = broken  # type: ignore[method-assign]
    rest = drive(drafted)["r0"]
    assert token_ids(said) + token_ids(rest) == answers(drive(plain, items(1)))["r0"][0]
    assert draft_of(drafted).allocated_bytes == 0
    drafted.park()
    drafted.unpark()
    before = drafted.health().num_guessed
    drive(drafted, items(1))
    assert drafted.health().num_guessed > before
    drafted.unload()


@pytest.mark.usefixtures("eager")
def test_who_wants_no_guesses_gets_none(stories: Path, load: Load, near: DraftSpec) -> None:
    for fields in ({}, {"draft": near}):
        driver = load(stories, context_length=256, **fields)
        before = driver.health().num_guessed
        asked = items(2, max_tokens=100, options={"guesses": False})
        events = drive(driver, asked)
        assert driver.health().num_guessed == before
        again = drive(driver, items(2, max_tokens=100, options={"guesses": True}))
        assert driver.health().num_guessed > before
        assert answers(again) == answers(events)
    with pytest.raises(InvalidRequest, match="guesses is true or false"):
        driver.submit(make_item("a", [1], options={"guesses": "no"}))
    with pytest.raises(UnsupportedParameter, match="no option guess; it has guesses"):
        driver.submit(make_item("a", [1], options={"guess": False}))


def test_guesses_stop_where_they_do_not_pay(stories: Path, nonsense: DraftSpec) -> None:
    """A clock that says: a draft step is as long as one of the model, and never right."""
    drafted = open_driver(stories, draft=nonsense)
    drive(drafted, items(1, max_tokens=200))
    assert drafted.health().num_guessed < 100
    drafted.unload()


# errors


def refused(folder: Path, draft: DraftSpec, **fields: Any) -> str:
    with pytest.raises(LoadFailed) as caught:
        open_driver(folder, draft=draft, **fields)
    return caught.value.message


def test_a_larger_draft(stories: Path, short: DraftSpec) -> None:
    message = refused(Path(short.folder), DraftSpec("big:1", str(stories), "sha256:big"))
    assert "draft model big:1 is larger than the model it is to guess for" in message


def test_itself(stories: Path) -> None:
    message = refused(stories, DraftSpec("s:1", str(stories), "sha256:0"))
    assert message == "s:1 cannot guess ahead for itself"


def test_another_vocabulary(stories: Path, tiny: Path, near: DraftSpec, tmp_path: Path) -> None:
    assert "another vocabulary: token 259 is '▁', the model's is '▁t'" in refused(
        stories, DraftSpec("tiny:1", str(tiny), "sha256:tiny")
    )
    other = Path(shutil.copytree(near.folder, tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    pretty = json.dumps(tokenizer, indent=1)
    (other / "tokenizer.json").write_text(pretty)  # the same, said in other words
    open_driver(stories, draft=DraftSpec("o:1", str(other), "sha256:o")).unload()
    (other / "tokenizer.json").write_text("{")
    assert "cannot be compared" in refused(stories, DraftSpec("o:1", str(other), "sha256:o"))
    (other / "tokenizer.json").unlink()
    assert "only one of the two has a tokenizer.json" in refused(
        stories, DraftSpec("o:1", str(other), "sha256:o")
    )


def test_without_tokenizers_their_numbers_have_to_agree(
    stories: Path, tiny: Path, near: DraftSpec, tmp_path: Path
) -> None:
    bare = [Path(shutil.copytree(f, tmp_path / n)) for f, n in ((stories, "a"), (tiny, "b"))]
    for folder in bare:
        folder.chmod(0o755)
        (folder / "tokenizer.json").unlink()
    assert "300 tokens, the model has 512" in refused(
        bare[0], DraftSpec("t:1", str(bare[1]), "sha256:t")
    )


def test_a_draft_nobody_reads(stories: Path, near: DraftSpec, tmp_path: Path) -> None:
    gone = DraftSpec("gone:1", str(tmp_path), "sha256:gone")
    assert "draft model gone:1: " in refused(stories, gone)
    odd = Path(shutil.copytree(near.folder, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"hidden_act": "relu6"}))
    assert "draft model odd:1: " in refused(stories, DraftSpec("odd:1", str(odd), "sha256:odd"))


def test_with_torch(stories: Path, near: DraftSpec) -> None:
    message = refused(stories, near, options={"engine": "torch"})
    assert "only the fused engine guesses ahead" in message


def test_with_guesses_off(stories: Path, near: DraftSpec) -> None:
    assert "guesses are off" in refused(stories, near, options=OFF)


def test_pages_for_as_many_as_are_guessed_for(stories: Path, near: DraftSpec) -> None:
    drafted = open_driver(stories, draft=near, num_slots=9)
    assert draft_of(drafted)._pages.num_pages == DRAFTED_REQUESTS * 16
    assert LIMITS.draft_rows // 2 == DRAFTED_REQUESTS
    drafted.unload()
