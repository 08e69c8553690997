"""Mechanical mutants that nobody can tell from the core by what it decides, each with why.

The key is the line as it stands and the kind of change, so that an entry dies with its line.
"""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "fault",
        "constant in `cooling: bool = False`",
    ): "cooling counts only before `retry_ns`, and whatever sets that sets `cooling` too",
    (
        "policies.order",
        "compare in `if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):`",
    ): "one entry earlier or later: dead entries are skipped whether they were swept or not",
    (
        "policies.classes",
        "and-or in `if on_credit and service_class < running.service_class:`",
    ): "a row given up to a lower class that earned nothing goes to the highest that waits, who"
    " is the one that gave it up: `_run` takes the pair back, only the count of slices differs",
    (
        "residency",
        "and-or in `if replica.state is ReplicaState.STARTING or replica.is_empty:`",
    ): "a starting replica is always empty; an empty ready one then drains, and the same step stops"
    " a drained one that is empty, for the same reason",
}
