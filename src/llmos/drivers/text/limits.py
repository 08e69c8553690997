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


class GrammarLimits(msgspec.Struct, frozen=True):
    """Bounds on what a grammar costs. Whoever sends one is not trusted.

    `source_chars` of its text, `symbols` of what it becomes; `compile_fuel` and `step_fuel` bound
    the work on regular expressions (llguidance does about 50,000 and 14,000 in a millisecond),
    `row_items` and `step_items` that of the parser (20,000 in a millisecond), `lexer_states` memory
    (1 to 2 KB each). `num_kept` compiled ones are kept for requests that bring them again.
    """

    source_chars: int = 131_072
    symbols: int = 20_000
    compile_fuel: int = 100_000
    step_fuel: int = 200_000
    row_items: int = 2_000
    step_items: int = 50_000
    lexer_states: int = 50_000
    num_kept: int = 64


GRAMMAR = GrammarLimits()
