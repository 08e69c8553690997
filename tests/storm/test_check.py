"""The checker: a good history passes, and each broken promise is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.storm.check import Checker
from tests.storm.history import Asked, Heard, Line, Mark, Seen, SeenFile, Writer, read, tail
from tests.storm.snapshot import Row, Snapshot

MS = 1_000_000


class Story:
    """Lines of one client, a millisecond apart."""

    def __init__(self) -> None:
        self.lines: list[Line] = [Mark(0, "ready", epoch=1)]
        self._number = 0

    @property
    def now_ns(self) -> int:
        return len(self.lines) * MS

    def mark(self, what: str, epoch: int = 0, detail: str = "") -> Story:
        self.lines.append(Mark(self.now_ns, what, detail, epoch))
        return self

    def ask(self, op: str, **about: Any) -> int:
        self._number += 1
        self.lines.append(Asked(self.now_ns, "c", self._number, op, **about))
        return self._number

    def hear(self, number: int, how: str = "ok", **about: Any) -> Story:
        self.lines.append(Heard(self.now_ns, "c", number, how, **about))
        return self

    def do(self, op: str, seen: Seen | None = None, how: str = "ok", **about: Any) -> Story:
        """Asked, and heard at once."""
        heard: dict[str, Any] = {
            name: about.pop(name) for name in ("taken", "attempt_", "code") if name in about
        }
        if "attempt_" in heard:
            heard["attempt"] = heard.pop("attempt_")
        return self.hear(self.ask(op, **about), how, seen=[seen] if seen else [], **heard)

    def submit(self, tag: str = "t", job_id: str = "j", **about: Any) -> Story:
        return self.do("submit", Seen(job_id, "pending", tag, 1), tag=tag, **about)


def row(job_id: str = "j", tag: str = "t", state: str = "succeeded", **about: Any) -> Row:
    made = Row(job_id, tag, state, 1, "x", 0, 1, 10, 20, False, None, [], None)
    return replace(made, **about)


def rules(story: Story, *rows: Row, **disk: Any) -> set[str]:
    """Which promises the checker says are broken."""
    checker = Checker()
    checker.feed(story.lines)
    snapshot = Snapshot(jobs={one.job_id: one for one in rows}, **disk)
    return {violation.rule for violation in checker.close(snapshot)}


def end(state: str = "succeeded", outcome: str = "x", epoch: int = 1) -> Seen:
    return Seen("j", state, "t", epoch, outcome)


def test_a_good_history_passes() -> None:
    story = Story().submit(key="k", keys=["r0"]).mark("kill").mark("ready", 2)
    story.submit(key="k", keys=["r0"])
    story.do("show", end(), job_id="j").do("show", end(), job_id="j")
    made = row(keys=["r0#1"])
    assert rules(story, made, made_with={"k": ["j"]}, epochs=[1, 2]) == set()


def test_an_acknowledged_job_must_be_there() -> None:
    assert rules(Story().submit()) == {"lost"}
    story = Story().submit().do("show", how="no", code="not_found", job_id="j")
    assert rules(story, row()) == {"lost"}


def test_a_removed_one_may_be_gone() -> None:
    story = Story().submit().do("remove", job_id="j")
    assert rules(story.do("show", how="no", code="not_found", job_id="j")) == set()


def test_without_an_answer_it_may_be_there_or_not() -> None:
    story = Story()
    story.ask("submit", tag="t", key="k")
    assert rules(story) == set()
    assert rules(story, row(), made_with={"k": ["j"]}) == set()


def test_at_most_once_under_a_key() -> None:
    story = Story()
    story.ask("submit", tag="t", key="k")
    assert rules(story, row("j"), row("i")) == {"duplicated"}
    story = Story().submit(job_id="j", key="k").submit(job_id="i", key="k")
    assert "duplicated" in rules(story, row("j"), made_with={"k": ["j"]})


def test_a_key_is_kept_with_what_it_made() -> None:
    assert rules(Story().submit(key="k"), row()) == {"lost"}


def test_what_was_refused_is_not_there() -> None:
    story = Story().do("submit", how="no", code="queue_full", tag="t")
    assert rules(story) == set()
    assert rules(story, row()) == {"duplicated"}


def test_nothing_comes_from_nowhere() -> None:
    assert rules(Story(), row()) == {"duplicated"}
    assert rules(Story(), row(tag="*scheduled")) == set()


def test_a_group_is_there_as_a_whole() -> None:
    story = Story()
    story.ask("submit", tags=["a", "b"])
    assert rules(story, row("j", "a"), row("i", "b")) == set()
    assert rules(story, row("j", "a")) == {"lost"}


@pytest.mark.parametrize(
    "later", [end("failed"), end(outcome="y"), end("running", ""), end("cancelled")]
)
def test_an_end_never_changes(later: Seen) -> None:
    story = Story().submit().do("show", end(), job_id="j").do("show", later, job_id="j")
    assert "changed" in rules(story, row())


def test_an_end_on_disk_is_the_one_that_was_seen() -> None:
    story = Story().submit().do("show", end(), job_id="j")
    assert rules(story, row(outcome="y")) == {"changed"}
    assert rules(story, row(state="failed")) == {"changed"}


def test_who_asked_before_the_end_may_be_told_of_before() -> None:
    story = Story().submit()
    early = story.ask("show", job_id="j")
    story.do("show", end(), job_id="j")
    story.hear(early, seen=[end("running", "")])
    assert rules(story, row()) == set()


def test_a_retry_begins_anew() -> None:
    story = Story().submit().do("show", end("failed"), job_id="j")
    story.do("retry", Seen("j", "pending", "t", 1), job_id="j")
    assert rules(story.do("show", end(), job_id="j"), row()) == set()


def test_a_retry_without_an_answer_is_settled_by_the_restart() -> None:
    story = Story().submit().do("show", end("failed"), job_id="j")
    story.hear(story.ask("retry", job_id="j"), "unknown")
    story.do("show", end("failed"), job_id="j").do("show", end("running", ""), job_id="j")
    assert rules(story, row()) == set()
    story.mark("kill").mark("ready", 2)
    story.do("show", end(), job_id="j").do("show", end("failed"), job_id="j")
    assert "changed" in rules(story, row())


@pytest.mark.parametrize(
    ("op", "state"), [("suspend", "pending"), ("resume", "suspended"), ("retry", "running")]
)
def test_what_was_acknowledged_is_so(op: str, state: str) -> None:
    story = Story().submit().do(op, Seen("j", state, "t", 1), job_id="j")
    assert rules(story, row(state="failed")) == {"changed"}


def test_a_cancelled_job_does_not_succeed() -> None:
    told = Seen("j", "running", "t", 1, is_told=True)
    story = Story().submit().do("cancel", told, job_id="j")
    assert rules(story, row(state="cancelled")) == set()
    assert rules(story, row()) == {"cancelled"}


def test_epochs_go_up() -> None:
    story = Story().submit().do("show", end(epoch=3), job_id="j")
    assert "epoch" in rules(story.do("show", end(epoch=2), job_id="j"), row())
    assert rules(Story().mark("ready", 1)) == {"epoch"}
    assert rules(Story(), epochs=[1, 3, 2]) == {"epoch"}


@pytest.mark.parametrize("state", ["pending", "running", "blocked", "suspended"])
def test_all_must_end(state: str) -> None:
    assert rules(Story().submit(), row(state=state)) == {"stuck"}


def test_needs_come_first() -> None:
    story = Story().submit("a", "i").submit("b", "j")
    need = row("i", "a", started_ns=1, ended_ns=5)
    assert rules(story, need, row("j", "b", needs=["i"])) == set()
    assert rules(story, replace(need, ended_ns=15), row("j", "b", needs=["i"])) == {"needs"}
    assert rules(story, replace(need, state="failed"), row("j", "b", needs=["i"])) == {"needs"}


@pytest.mark.parametrize("keys", [["r0"], ["r0", "r1", "r1"], ["r1", "r0"], [], None])
def test_each_line_once_and_in_order(keys: list[str] | None) -> None:
    story = Story().submit(keys=["r0", "r1"])
    assert rules(story, row(keys=["r0", "r1"])) == set()
    assert rules(story, row(keys=keys)) == {"results"}


def test_an_answer_is_the_one_to_what_was_asked() -> None:
    story = Story().submit(digest="你好")
    assert rules(story, row(answer="你好")) == set()
    assert rules(story, row(answer="hello")) == {"results"}
    assert rules(story, row()) == {"results"}


def file_added(digest: str = "d") -> Story:
    story = Story()
    return story.hear(
        story.ask("file_add", tag="f", digest="d"), files=[SeenFile("file_1", digest, "f")]
    )


def test_a_file_is_what_was_sent() -> None:
    assert rules(file_added(), files={"file_1": ("f", "d")}) == set()
    assert rules(file_added("e"), files={"file_1": ("f", "d")}) == {"file"}
    assert rules(file_added(), files={"file_1": ("f", "e")}) == {"file"}
    assert rules(file_added(), files={}) == {"lost"}
    two = {"file_1": ("f", "d"), "file_2": ("f", "d")}
    assert rules(file_added(), files=two) == {"duplicated"}


def test_a_read_file_is_equal_to_what_was_sent() -> None:
    story = file_added()
    story.hear(story.ask("file_read", file_id="file_1"), files=[SeenFile("file_1", "e", "f")])
    assert rules(story, files={"file_1": ("f", "d")}) == {"file"}


def test_damage_is_told() -> None:
    assert rules(Story(), damage=["integrity_check: a page is gone"]) == {"disk"}


def test_untyped_errors_are_told() -> None:
    assert rules(Story().do("show", how="no", code="internal_error", job_id="j")) == {"error"}
    assert rules(Story().do("list", how="no", code="storage_error")) == {"error"}


def began(story: Story, number: int = 1, epoch: int = 1, *, taken: bool = True) -> Story:
    return story.do("begin", job_id="j", epoch=epoch, taken=taken, attempt_=number)


def reported(story: Story, op: str, number: int = 1, epoch: int = 1, **about: Any) -> Story:
    return story.do(op, job_id="j", attempt=number, epoch=epoch, **about)


def _late(story: Story) -> Story:
    reported(began(story), "requeue")
    began(story, 2)
    return reported(story, "put", 1, keys=["r0"])


def _stale_epoch(story: Story) -> Story:
    began(story).mark("kill").mark("ready", 2)
    return reported(story, "finish", state="succeeded")


def _twice(story: Story) -> Story:
    reported(began(story), "finish", state="succeeded")
    return reported(story, "finish", state="succeeded")


def _two_at_once(story: Story) -> Story:
    return began(began(story), 2)


def _same_number(story: Story) -> Story:
    return began(reported(began(story), "requeue"), 1)


def _not_taken(story: Story) -> Story:
    return reported(began(story), "put", keys=["r0"], taken=False)


def _claim(story: Story, seen: Seen | None = None, **about: Any) -> Story:
    return story.do("claim", seen or Seen("j", "pending", "t", 1), epoch=1, **about)


def _claimed_twice(story: Story) -> Story:
    return _claim(_claim(story))


def _claimed_blocked(story: Story) -> Story:
    return _claim(story, Seen("j", "blocked", "t", 1, num_unmet=1))


def _claimed_early(story: Story) -> Story:
    reported(began(_claim(story)), "requeue", now_ns=500)
    return _claim(story, now_ns=400)


def _death_forgotten(story: Story) -> Story:
    reported(began(_claim(story)), "requeue", died=True)
    return _claim(story)


def _unbeginnable(story: Story) -> Story:
    return began(_claim(story), taken=False)


@pytest.mark.parametrize(
    ("tell", "rule"),
    [
        (_late, "attempt"),
        (_stale_epoch, "attempt"),
        (_twice, "duplicated"),
        (_two_at_once, "duplicated"),
        (_same_number, "duplicated"),
        (_not_taken, "lost"),
        (_claimed_twice, "duplicated"),
        (_claimed_blocked, "needs"),
        (_claimed_early, "attempt"),
        (_death_forgotten, "attempt"),
        (_unbeginnable, "stuck"),
    ],
)
def test_attempts(tell: Callable[[Story], Story], rule: str) -> None:
    assert rule in rules(tell(Story().submit()), row())


def test_good_attempts_pass() -> None:
    story = _claim(Story().submit(keys=["r0"]))
    reported(began(story), "requeue", died=True)
    _claim(story, Seen("j", "pending", "t", 1, num_deaths=1))
    reported(began(story, 2), "put", 2, keys=["r0"])
    reported(story, "put", 1, keys=["r0"], taken=False)
    reported(story, "finish", 2, state="succeeded")
    reported(story, "finish", 2, state="succeeded", taken=False)
    assert rules(story, row(keys=["r0#2"])) == set()
    assert rules(story, row(keys=["r0#1"])) == {"results"}


def test_refusals_and_recoveries_are_timed() -> None:
    story = Story().submit("a", "i").mark("fault", detail="ENOSPC")
    story.do("submit", how="no", code="disk_full", tag="t")
    story.mark("healed").submit("b", "j")
    checker = Checker()
    checker.feed(story.lines)
    assert checker.refusals_s == {"ENOSPC": [0.001]}
    assert checker.recoveries_s == {"ENOSPC": [0.002]}
    assert not checker.violations


def _slow(story: Story) -> Story:
    number = story.ask("submit", tag="t")
    story.lines.append(Heard(story.now_ns + 2_000 * MS, "c", number, "no", "disk_full"))
    return story


def _silent(story: Story) -> Story:
    return story.hear(story.ask("submit", tag="t"), "unknown")


def _late_recovery(story: Story) -> Story:
    story.mark("healed")
    story.lines.append(Asked(20_000 * MS, "c", 99, "submit", tag="t"))
    seen = [Seen("j", "pending", "t", 1)]
    story.lines.append(Heard(20_001 * MS, "c", 99, "ok", seen=seen))
    return story


@pytest.mark.parametrize("tell", [_slow, _silent, _late_recovery])
def test_slow_refusals_and_late_recoveries_are_told(tell: Callable[[Story], Story]) -> None:
    story = tell(Story().mark("fault", detail="EIO"))
    checker = Checker()
    checker.feed(story.lines)
    assert {violation.rule for violation in checker.violations} == {"fault"}


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    writer = Writer(tmp_path / "one", "c")
    for number in range(50):
        asked = writer.ask("submit", tag=f"标签 {number}")
        writer.heard(asked, "ok", seen=[Seen(f"j{number}", "pending")])
    writer.close()
    yield tmp_path / "one"


def test_a_history_is_read_back_in_order(written: Path) -> None:
    lines = read([written])
    assert len(lines) == 100
    assert [line.at_ns for line in lines] == sorted(line.at_ns for line in lines)


def test_a_line_cut_short_is_left_out(written: Path) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[:-5])
    assert len(read([written])) == 99


def test_the_newest_lines_are_found_without_the_others(written: Path) -> None:
    newest = tail(written, 1000)
    assert newest == read([written])[-len(newest) :]
    assert 0 < len(newest) < 100
    assert tail(written.with_name("none"), 1000) == []
