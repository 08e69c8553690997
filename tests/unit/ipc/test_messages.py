"""Every message of the ABI survives the wire; every error keeps its class."""

from __future__ import annotations

import typing

import msgspec
import pytest

from llmos.abi import syscall
from llmos.abi.ids import new_id, uuid7
from llmos.errors import ERRORS, ErrorInfo, LLMOSError, from_info


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_an_error_crosses_a_process_as_itself(code: str) -> None:
    error = ERRORS[code]("why", param="p", retry_after_s=2.5, details={"near": ["x"]})
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(error.to_info()), type=ErrorInfo)
    back = from_info(wire)
    assert type(back) is ERRORS[code]
    assert (back.message, back.param, back.retry_after_s) == ("why", "p", 2.5)
    assert back.details == {"near": ["x"]}
    assert back.retryable == error.retryable


def test_an_unknown_code_is_still_an_error() -> None:
    assert type(from_info(ErrorInfo("from_the_future", "hm"))) is LLMOSError


def test_codes_are_unique_and_drawn_in_the_docstring() -> None:
    import llmos.errors

    drawn = llmos.errors.__doc__ or ""
    for code, cls in ERRORS.items():
        if code not in ("internal_error", "user_error", "capacity_error", "worker_error"):
            assert cls.__name__ in drawn, cls
            assert code in drawn, code


@pytest.mark.parametrize("union", ["ToGate", "FromGate", "Body", "Result"])
def test_the_gates_messages_can_leave_the_process(union: str) -> None:
    """In memory they never do; a front end of its own needs them to."""
    kind = getattr(syscall, union)
    msgspec.msgpack.Decoder(kind)
    assert len(typing.get_args(kind)) >= 3


def test_ids_sort_by_time_and_carry_their_type() -> None:
    early, late = uuid7(1_000_000_000_000_000_000, b"\xff" * 10), uuid7(2 * 10**18, b"\0" * 10)
    assert early.hex < late.hex
    assert early.version == 7
    assert new_id("req").startswith("req_")
    assert len({new_id("job") for _ in range(1000)}) == 1000
