"""What leaves the machine for somebody else to read: no secrets, no prompts, no answers.

Two nets, for either has holes: values known to be secret are taken out wherever they stand, and
what looks like one, or stands under a name that says so, is taken out whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_\-.])(?:api[_-]?key|key|secret|token|password|passwd|passphrase|authorization"
    r"|cookie|credential|credentials|bearer|salt)$"
)
_TEXT_NAMES = frozenset(
    {
        *("prompt", "prompts", "messages", "content", "text", "input", "inputs", "items"),
        *("output", "outputs", "answer", "answers", "completion", "instructions", "system"),
        *("generate", "events", "decision", "tokens", "token_ids", "generated", "payload", "stop"),
        *("shown", "grammar", "tools", "choices", "rows", "body", "data", "delta", "query"),
    }
)
"""Where text of people stands, in our messages, in OpenAI's bodies and in reprs of either."""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w\-.~+/=]{6,}"), r"\1 " + REDACTED),
    (re.compile(r"\b(?:sk|pk|rk)-[\w\-]{8,}"), REDACTED),
    (re.compile(r"\bllmos_[\w\-]{20,}"), REDACTED),
    (re.compile(r"\b(?:hf|ghp|gho|ghs|xox[abp])[_-][\w\-]{16,}"), REDACTED),
    (re.compile(r"\bAKIA[0-9A-Z]{12,}"), REDACTED),
    (re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*"), REDACTED),
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"), REDACTED),
    (
        re.compile(
            r"(?i)([\"']?\b[\w\-.]*(?:api[_-]?key|secret|token|password|passwd|credential)"
            r"[\"']?\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&)}\]]+)"
        ),
        r"\1" + REDACTED,
    ),
    (re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL), REDACTED),
)
_QUOTED_TEXT = re.compile(
    r"([\"']?\b(?:" + "|".join(sorted(_TEXT_NAMES)) + r")[\"']?\s*[=:]\s*)"
    r"([bru]{0,2}\"(?:[^\"\\]|\\.)*\"?|[bru]{0,2}'(?:[^'\\]|\\.)*'?|\[.*|\{.*)"
)
_LEAST_SECRET = 6
"""A known secret that is shorter would take out parts of ordinary words."""


def is_secret_name(name: str) -> bool:
    """Whether what is called so is a secret: `LLMOS_API_KEY`, `hf_token`, `password`."""
    return _SECRET_NAME.search(name) is not None


class Redactor:
    """`secrets` are known values: the home's token, stored keys, the environment's."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {value for secret in secrets if len(value := secret.strip()) >= _LEAST_SECRET}
        ordered = sorted(known, key=len, reverse=True)  # one may be part of another
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """A line, or many."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return _QUOTED_TEXT.sub(r"\1" + REDACTED, text)

    def value(self, value: Any, name: str = "") -> Any:
        """JSON. Numbers, truth and emptiness stay, whatever they are called; an object or a list
        under a name that says so goes as a whole."""
        if value is None or isinstance(value, bool | int | float) or not value:
            return value
        if is_secret_name(name) or name.lower() in _TEXT_NAMES:
            return REDACTED
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self.value(item, name) for item in value]
        return self.text(str(value))
