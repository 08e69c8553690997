"""What became of each request, and the figures read off it. Pure.

Times are seconds from the start of the run. Latencies count from when a request was due, not from
when the client got round to sending it (no coordinated omission).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.harness import percentile

OK = 200
OUTPUT_COST = 2.0
"""A token of the answer counts as two of the prompt, as in the kernel's shares."""


class Record(msgspec.Struct):
    """`status` 0: not answered in full when the run ended, or the stream broke.

    `token_s`: when each token came. `late_s`: by how much the client was late to send it.
    """

    group: str
    due_s: float
    late_s: float = 0.0
    status: int = 0
    end_s: float = 0.0
    token_s: list[float] = []
    prompt_tokens: int = 0
    error: str = ""

    @property
    def ttft_s(self) -> float | None:
        """None: no token came."""
        return self.token_s[0] - self.due_s if self.token_s else None

    @property
    def latency_s(self) -> float:
        return self.end_s - self.due_s


def of_group(records: Iterable[Record], group: str) -> list[Record]:
    return [record for record in records if record.group == group]


def ttft_s(records: Sequence[Record], until_s: float, share: float) -> float:
    """A percentile of time to first token of those due before `until_s`.

    One that had no token by then counts with the time it had waited: leaving it out would flatter.
    """
    values = [
        record.ttft_s if record.ttft_s is not None else until_s - record.due_s
        for record in records
        if record.due_s < until_s and record.status in (0, OK)
    ]
    return percentile(values, share)


def service(
    records: Iterable[Record], groups: Sequence[str], begin_s: float, end_s: float
) -> list[float]:
    """Cost of what each group was served in a window: prompts when read, answers by the token."""
    served = dict.fromkeys(groups, 0.0)
    for record in records:
        if record.group not in served or not record.token_s:
            continue
        if begin_s <= record.token_s[0] < end_s:
            served[record.group] += record.prompt_tokens
        num_tokens = sum(begin_s <= at < end_s for at in record.token_s)
        served[record.group] += OUTPUT_COST * num_tokens
    return [served[group] for group in groups]


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index (Jain, Chiu, Hawe 1984): 1 is equal, 1/n is one for all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def worst_share_error(served: Sequence[float], weights: Sequence[float]) -> float:
    """The largest relative difference between what was served and what the weights say."""
    total, whole = sum(served), sum(weights)
    wanted = [total * weight / whole for weight in weights]
    return max(abs(got / want - 1) for got, want in zip(served, wanted, strict=True))


def goodput(records: Iterable[Record], begin_s: float, end_s: float) -> float:
    """Requests per second answered in full within a window."""
    done = sum(record.status == OK and begin_s <= record.end_s < end_s for record in records)
    return done / (end_s - begin_s)


def tokens_per_s(records: Iterable[Record], begin_s: float, end_s: float) -> float:
    """Answer tokens per second in a window."""
    count = sum(begin_s <= at < end_s for record in records for at in record.token_s)
    return count / (end_s - begin_s)
