"""What a gate reads of a step: the verdict that an evaluation has put on record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.errors import InvalidRequest


def verdict_of(step: str, outputs: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether it passed, and why. Raises InvalidRequest for a step without a verdict."""
    gate = outputs.get("gate")
    if not isinstance(gate, dict) or not isinstance(gate.get("passed"), bool):
        text = f"step {step!r} has no verdict: give its evaluation a `gate`"
        raise InvalidRequest(text, param="gate")
    checks = gate.get("checks") or []
    wanted = checks if gate["passed"] else [c for c in checks if not c.get("passed")]
    reasons = "; ".join(str(check.get("reason", "")) for check in wanted)
    return gate["passed"], ("passed: " if gate["passed"] else "not passed: ") + reasons
