"""Which rows make the next batch: whoever is first, and whoever is about as long as that. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.drivers.encoder.limits import EncoderLimits


def pick(lengths: Sequence[int], limits: EncoderLimits) -> list[int]:
    """Places of the batch in `lengths`, the first row's always among them, shortest first.

    Rows are `lengths[i]` long and stand in the order in which they should run. The batch is as
    large as it may be around the length of the first: no row of more than `free_tokens` is padded
    to more than `most_padding` times its length, and with padding it has `batch_tokens` at most.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))

    def fits(low: int, high: int) -> bool:
        if low < 0 or high >= len(order):
            return False
        longest, shortest = lengths[order[high]], lengths[order[low]]
        in_room = longest * (high - low + 1) <= limits.batch_tokens
        return in_room and longest <= max(limits.free_tokens, shortest * limits.most_padding)

    low = high = order.index(0)
    while high - low + 1 < limits.batch_rows:
        can_up, can_down = fits(low, high + 1), fits(low - 1, high)
        if not can_up and not can_down:
            break
        # the nearer neighbour first
        up = lengths[order[high + 1]] - lengths[0] if can_up else limits.batch_tokens
        down = lengths[0] - lengths[order[low - 1]] if can_down else limits.batch_tokens
        if up <= down:
            high += 1
        else:
            low -= 1
    return order[low : high + 1]
