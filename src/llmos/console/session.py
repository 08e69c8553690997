"""Who sits before the browser: their key, in a cookie that no script can read.

The cookie is for this host alone, and its name has the port in it: browsers share cookies between
the ports of a host, and two servers on one machine are two places to log in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.types import Scope

LANGUAGES = ("en", "zh")
THEMES = ("auto", "light", "dark")
LANGUAGE_COOKIE = "llmos_language"
THEME_COOKIE = "llmos_theme"
MAX_KEY_CHARS = 512


@dataclass(frozen=True, slots=True)
class Session:
    """A key and when it must be given again (UTC, seconds)."""

    key: str
    expires_s: int

    def is_over(self, now_s: float) -> bool:
        """Whether to ask for the key again."""
        return now_s >= self.expires_s


def cookie_name(scope: Scope) -> str:
    """By the port that was called, as the browser knows it."""
    host = header(scope, b"host")
    port = host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else "default"
    return f"llmos_session_{port}"


def find_session(scope: Scope, now_s: float | None = None) -> Session | None:
    """The session of a request, or None: there is none, or it is over."""
    text = cookies(scope).get(cookie_name(scope), "")
    expires, dot, key = text.partition(".")
    if not (dot and expires.isdecimal() and len(expires) <= 12 and _is_key(key)):
        return None
    session = Session(key, int(expires))
    return None if session.is_over(time.time() if now_s is None else now_s) else session


def login_cookie(scope: Scope, key: str, session_s: float, now_s: float | None = None) -> bytes:
    """The `set-cookie` of somebody who logs in. Raises ValueError on what can be no key."""
    if not _is_key(key):
        raise ValueError("this can be no key")
    expires = int((time.time() if now_s is None else now_s) + session_s)
    return _set_cookie(scope, f"{expires}.{key}", int(session_s))


def logout_cookie(scope: Scope) -> bytes:
    """The `set-cookie` that forgets."""
    return _set_cookie(scope, "", 0)


def _set_cookie(scope: Scope, value: str, max_age_s: int) -> bytes:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    made = f"{cookie_name(scope)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict"
    return (made + secure).encode("ascii")


def _is_key(text: str) -> bool:
    """Letters, digits and a few marks: what every key of ours is made of, and no cookie ends at."""
    return 0 < len(text) <= MAX_KEY_CHARS and all(
        c.isascii() and (c.isalnum() or c in "_-.~") for c in text
    )


def cookies(scope: Scope) -> dict[str, str]:
    """All of a request; a broken header has none."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(header(scope, b"cookie"))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def header(scope: Scope, name: bytes) -> str:
    """One header of a request, empty where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def language_of(scope: Scope) -> str:
    """What was chosen, else what the browser asks for, else English."""
    chosen = cookies(scope).get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    for part in header(scope, b"accept-language").split(","):
        if (name := part.strip()[:2].lower()) in LANGUAGES:
            return name
    return "en"


def theme_of(scope: Scope) -> str:
    """What was chosen, else as the system has it."""
    chosen = cookies(scope).get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "auto"
