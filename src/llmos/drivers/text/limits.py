"""Bounds on what a chat template may do. It is code that came with a model: hostile by default."""

from __future__ import annotations

import msgspec


class TemplateLimits(msgspec.Struct, frozen=True):
    """`num_steps` loop turns and calls, `num_chars` characters made in all, `deadline_s` seconds.

    `max_number` bounds numbers that ask for text or lists of a size (widths, repetitions), and
    `source_chars` the template itself.
    """

    source_chars: int = 1_000_000
    num_steps: int = 2_000_000
    num_chars: int = 32_000_000
    max_number: int = 10_000
    deadline_s: float = 2.0


LIMITS = TemplateLimits()
