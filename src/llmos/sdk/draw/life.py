"""A process's life: its states one after the other, with the reasons, as a bar and a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmos.abi.syscall import ProcessStory
from llmos.sdk.draw import amounts
from llmos.sdk.draw.words import escaped

NS = 1_000_000_000

_TONES = {
    "running": "good",
    "ready": "good",
    "finished": "done",
    "succeeded": "done",
    "failed": "bad",
    "not ready": "bad",
    "dead": "bad",
    "aborted": "warn",
    "cancelled": "warn",
    "suspended": "held",
    "suspending": "held",
    "paused": "held",
    "parked": "held",
}


def tone(state: str) -> str:
    """The colour of a state: good, done, bad, warn, held, or waits."""
    return _TONES.get(state, "waits")


@dataclass(frozen=True, slots=True)
class Stay:
    """A time in one state, from `begin_s` after the arrival. Reasons by their time."""

    state: str
    begin_s: float
    length_s: float
    reasons: list[tuple[float, str]]


def stays(story: ProcessStory, now_ns: int) -> list[Stay]:
    """A process's life as its states, one after the other without gaps."""
    begin_ns = story.info.created_ns
    end_ns = story.info.ended_ns or max(now_ns, begin_ns)
    made: list[Stay] = []
    for decided in sorted(story.decisions, key=lambda d: d.at_ns):
        at_s = max(0, decided.at_ns - begin_ns) / NS
        reason = (at_s, decided.reason)
        if made and made[-1].state == decided.state:
            made[-1].reasons.append(reason)
            continue
        if made:
            made[-1] = replace(made[-1], length_s=max(0.0, at_s - made[-1].begin_s))
        made.append(Stay(decided.state, at_s if made else 0.0, 0.0, [reason]))
    if made:
        rest_s = max(0.0, (end_ns - begin_ns) / NS - made[-1].begin_s)
        made[-1] = replace(made[-1], length_s=rest_s)
    return made


def timeline(made: Sequence[Stay], name: Callable[[str], str]) -> str:
    """The life as one bar, and below it each stay with its reasons. `name` translates a state."""
    whole_s = sum(stay.length_s for stay in made)
    bars = "".join(
        f'<i class="{tone(stay.state)}" style="flex-grow:{max(stay.length_s / whole_s, 0.004):.4f}"'
        f' title="{escaped(name(stay.state))}: {amounts.span(stay.length_s)}"></i>'
        for stay in made
        if whole_s > 0
    )
    items = "".join(
        f'<li><span class="chip {tone(stay.state)}">{escaped(name(stay.state))}</span>'
        f"<em>{amounts.span(stay.length_s)}</em><ol>{_reasons(stay)}</ol></li>"
        for stay in made
    )
    return f'<div class="life" aria-hidden="true">{bars}</div><ol class="stays">{items}</ol>'


def _reasons(stay: Stay) -> str:
    return "".join(
        f"<li><time>+{amounts.span(at_s)}</time><span>{escaped(reason)}</span></li>"
        for at_s, reason in stay.reasons
    )
