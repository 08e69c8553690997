"""The status table names every class of the error tree, and the envelope survives anything."""

from __future__ import annotations

import msgspec
import pytest

from llmos.api.status import encode_envelope, error_headers
from llmos.errors import (
    ERRORS,
    AuthenticationFailed,
    CapacityError,
    ConfigError,
    InvalidRequest,
    LLMOSError,
    PluginError,
    QueueFull,
    UserError,
)
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.status import STATUS, http_error


def test_the_table_is_exhaustive_and_has_nothing_else() -> None:
    assert set(STATUS) == set(ERRORS)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda c: c.code)
def test_status_fits_the_branch_of_the_tree(cls: type[LLMOSError]) -> None:
    status = http_error(cls.code).status
    if issubclass(cls, UserError):
        assert 400 <= status < 500
    elif issubclass(cls, CapacityError):
        assert status in {429, 503, 504}
    elif cls in (LLMOSError, ConfigError, PluginError):
        assert status == 500
    else:
        assert status in {502, 503, 507}


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda c: c.code)
def test_retry_after_is_there_exactly_when_a_retry_may_work(cls: type[LLMOSError]) -> None:
    headers = dict(error_headers(cls("x")))
    assert (b"retry-after" in headers) == cls.retryable
    assert headers[b"x-should-retry"] == (b"true" if cls.retryable else b"false")


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    assert dict(error_headers(QueueFull("x", retry_after_s=1.2)))[b"retry-after"] == b"2"
    assert dict(error_headers(QueueFull("x", retry_after_s=0.01)))[b"retry-after"] == b"1"


def test_401_names_its_scheme() -> None:
    assert b"www-authenticate" in dict(error_headers(AuthenticationFailed("x")))


def test_the_envelope_is_the_documented_one() -> None:
    error = QueueFull("full", retry_after_s=3, details={"queued": 9})
    made = ErrorAnswer.model_validate_json(encode_envelope(error)).error
    assert (made.code, made.retry_after_s, made.details) == ("queue_full", 3, {"queued": 9})


def test_an_envelope_that_json_cannot_hold_is_shown_escaped() -> None:
    made = msgspec.json.decode(encode_envelope(InvalidRequest("bad \ud800", param="a.\ud800")))
    assert made["error"]["code"] == "invalid_request"
    assert "\\ud800" in made["error"]["message"]
