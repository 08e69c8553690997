"""Mechanical mutants that nobody can tell from the core by what it decides, each with why.

The key is the line as it stands and the kind of change, so that an entry dies with its line.
"""

from __future__ import annotations

_HEAP = "if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):"
_DUE = "if len(self.due) > 64 and len(self.due) > 2 * len(self.requests):"
_SWEEP = "a sweep earlier or later: dead entries are skipped whether they were swept or not"

_TIGHT = "it steers how tight a bound is, hence how long the search takes, not what it finds"

EQUIVALENT: dict[tuple[str, str], str] = {
    ("policies.order", f"compare in `{_HEAP}`"): _SWEEP,
    ("policies.order", f"and-or in `{_HEAP}`"): _SWEEP,
    (
        "policies.order",
        "dropped assignment in "
        "`self._heap = [e for e in self._heap if self._live.get(e[2].request_id) == e[1]]`",
    ): _SWEEP,
    (
        "cover",
        "arithmetic in "
        "`w * short / max(f, short / 4) for w, short, f in zip(weights, need, freed, strict=True)`",
    ): _TIGHT,
    ("cover", "arithmetic in `price += steps[-1].price`"): _TIGHT,
    (
        "cover",
        "constant in `return sum([f * s for f, s in zip(frees, scale, strict=True)])`",
    ): "the two are of the same devices",
    ("state", f"compare in `{_DUE}`"): _SWEEP,
    ("state", f"and-or in `{_DUE}`"): _SWEEP,
    (
        "policies.fair",
        "compare in `if not is_over and self._key(waiting) >= self._key(running):`",
    ): "no two keys are equal: each ends in the number of its arrival, and nobody waits and runs",
    (
        "policies.classes",
        "compare in `return float(service_class > newcomer.service_class)`",
    ): "its own class is dealt with in the lines before",
    (
        "sched",
        "constant in `dequeue(state, request, popped=True)`",
    ): "to remove what the policy has let go of already does nothing, it only costs",
    (
        "fault",
        "constant in `cooling: bool = False`",
    ): "cooling counts only before `retry_ns`, and whatever sets that sets `cooling` too",
    (
        "residency",
        "dropped call in `state.wake_at(state.faults[model_id].retry_ns)`",
    ): "whatever sets `retry_ns` has set the alarm for it already",
}
