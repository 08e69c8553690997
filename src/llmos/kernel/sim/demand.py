"""What is raised when the core breaks a promise."""

from __future__ import annotations


class Violation(AssertionError):
    """The core broke a promise."""


def demand(holds: bool, what: str) -> None:
    """Raise Violation unless it holds (an `assert` could be switched off)."""
    if not holds:
        raise Violation(what)
