"""A model that answers elsewhere: where, under which name, with which key, for which price."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from llmos.errors import InvalidRequest

REMOTE_FILE = "remote.json"
"""The one file of such a version's folder: a `RemoteSpec`, without any secret."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
PerMillion = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Kind = Literal["generate", "embeddings"]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]

RESERVED = ("input", "messages", "model", "prompt", "stream", "stream_options")
"""Fields of a body that are the driver's to fill."""

_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """In US dollars for a million tokens. `cached_input` None: as any other input."""

    input: PerMillion = 0.0
    output: PerMillion = 0.0
    cached_input: PerMillion | None = None


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An OpenAI-compatible server. `url` ends before `/chat/completions`; `key` is the name of a
    secret, never the secret itself; empty: it wants none. `extra` is sent with each request."""

    url: Word
    model: Word
    key: Annotated[str, msgspec.Meta(max_length=128)] = ""
    price: Price | None = None
    extra: dict[str, Any] = {}

    @property
    def host(self) -> str:
        """Host and port, as in an allow-list of egress."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Seconds: until connected, until the first token of an answer, between two."""

    connect_s: Positive = 10.0
    first_token_s: Positive = 120.0
    between_tokens_s: Positive = 60.0


class Retries(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Before the first token only. A round asks every endpoint once, in order; between rounds the
    wait doubles from `first_delay_s` up to `max_delay_s`, less up to half of it by chance, and is
    at least what `Retry-After` asks for. After `give_up_s` nothing is tried any more."""

    rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    first_delay_s: Positive = 0.5
    max_delay_s: Positive = 20.0
    give_up_s: Positive = 180.0


class Breaking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """After `failures` in a row an endpoint is not asked for `open_s`; then one request tries."""

    failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    open_s: Positive = 15.0


class RemoteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a driver needs to know of a remote model. Endpoints are asked in their order.

    `chars_per_token` is what prompts are estimated by. `extensions`: it knows vLLM's additions to
    OpenAI's fields, as LLMOS does. `tokens_field` is what it calls the bound on an answer.
    `kinds` are what it can be asked for: texts (`generate`), vectors (`embeddings`).
    `usage_in_stream` False: it refuses `stream_options`. `max_concurrency`: requests at once.
    """

    endpoints: Annotated[list[Endpoint], msgspec.Meta(min_length=1, max_length=16)]
    context_length: Annotated[int, msgspec.Meta(ge=16, le=1 << 30)] = 128_000
    chars_per_token: Annotated[float, msgspec.Meta(ge=0.25, le=64)] = 3.0
    max_concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaking: Breaking = Breaking()
    extensions: bool = False
    tokens_field: Annotated[str, msgspec.Meta(pattern="^max_(completion_)?tokens$")] = "max_tokens"
    usage_in_stream: bool = True
    kinds: Annotated[list[Kind], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["generate"]
    )

    @property
    def hosts(self) -> list[str]:
        """Where its driver reaches out to."""
        return sorted({endpoint.host for endpoint in self.endpoints})

    @property
    def keys(self) -> list[str]:
        """Names of the secrets it is to be given."""
        return sorted({endpoint.key for endpoint in self.endpoints if endpoint.key})


def read_spec(raw: Any) -> RemoteSpec:
    """From JSON-able data. Raises InvalidRequest naming the field."""
    try:
        spec = msgspec.convert(raw, RemoteSpec)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"remote: {error}", param="remote") from None
    for number, endpoint in enumerate(spec.endpoints):
        if fault := _fault(endpoint):
            raise InvalidRequest(f"remote: endpoints[{number}]: {fault}", param="remote")
    return spec


def parse_remote(text: str) -> RemoteSpec:
    """Of `https://host/v1#model`. Raises InvalidRequest."""
    url, _, model = text.partition("#")
    if not url or not model:
        raise InvalidRequest(
            f"bad source {text[:100]!r}: expected openai:https://host/v1#model", param="source"
        )
    return read_spec({"endpoints": [{"url": url, "model": model}]})


def _fault(endpoint: Endpoint) -> str | None:
    try:
        parts = urlsplit(endpoint.url)
        _ = parts.port
    except ValueError:
        return "url is none"
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        return "url: expected http://HOST or https://HOST, with a path"
    if "@" in parts.netloc:
        return "url: a password does not belong into it; name a key"
    if parts.query or parts.fragment or any(c.isspace() or not c.isprintable() for c in parts.path):
        return "url: nothing may follow its path"
    if endpoint.key and not _KEY.fullmatch(endpoint.key):
        return "key: expected the name of a secret (letters, digits and _)"
    for name in endpoint.extra:
        if name in RESERVED:
            return f"extra: {name} is filled by each request"
    return None
