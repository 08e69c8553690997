"""How an attempt ended, as one message: outputs, an error with its traceback, or way given."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec

from llmos.abi import worker as msg
from llmos.abi.program import Interrupted, Yielded
from llmos.errors import Cancelled, DiskFull, ErrorInfo, LLMOSError, ProgramFailed
from llmos.worker.plain import clean, plain
from llmos.worker.signals import Signals

MAX_OUTPUTS_BYTES = 1 << 20
MAX_MESSAGE_CHARS = 2000
MAX_TRACEBACK_CHARS = 16_384
MAX_DETAILS_BYTES = 262_144
MAX_FRAMES = 40

Outcome = msg.Returned | msg.Raised | msg.GaveWay


def returned(outputs: Any) -> Outcome:
    """Of what `run` returned; None is no outputs."""
    try:
        if not isinstance(outputs, Mapping | None):
            raise ProgramFailed(f"run returned a {type(outputs).__name__}, not an object")
        return msg.Returned(plain(outputs or {}, "outputs", MAX_OUTPUTS_BYTES))
    except LLMOSError as error:
        return msg.Raised(ProgramFailed(f"the outputs are refused: {error.message}").to_info())


def raised(error: BaseException, signals: Signals) -> Outcome:
    """Of what came out of `run`, whatever it is."""
    if isinstance(error, Yielded):
        if signals.should_yield:
            return msg.GaveWay()
        return msg.Raised(ProgramFailed("the program gave way without being asked to").to_info())
    if isinstance(error, Interrupted):
        return msg.Raised(Cancelled(f"interrupted: {signals.reason or error}").to_info())
    if isinstance(error, LLMOSError):
        return msg.Raised(_presentable(error), _traceback(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return msg.Raised(DiskFull(_last_line(error)).to_info(), _traceback(error))
    return msg.Raised(ProgramFailed(_cause(error)).to_info(), _traceback(error))


def _cause(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the program exited with {_last_line(error)}"
    if isinstance(error, MemoryError):
        return "the program ran out of memory (MemoryError)"
    return _last_line(error)


def _last_line(error: BaseException) -> str:
    """`Type: message`, also of an error that cannot say what it is."""
    lines = traceback.format_exception_only(type(error), error)
    return clean(lines[-1].strip()[:MAX_MESSAGE_CHARS])


def _traceback(error: BaseException) -> str:
    """The newest part of it, from the program's own first frame on."""
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(error), error, frames, limit=-MAX_FRAMES))
    if len(text) > MAX_TRACEBACK_CHARS:
        text = "…\n" + text[-MAX_TRACEBACK_CHARS:]
    return clean(text)


def _presentable(error: LLMOSError) -> ErrorInfo:
    """Its wire form, within bounds: a program may raise one with anything in it."""
    info = error.to_info()
    message = clean(str(info.message))[:MAX_MESSAGE_CHARS]
    param = None if info.param is None else clean(str(info.param))[:MAX_MESSAGE_CHARS]
    retry_after_s = info.retry_after_s
    if not isinstance(retry_after_s, int | float) or not 0 <= retry_after_s < float("inf"):
        retry_after_s = None
    try:
        details = plain(info.details, "details", MAX_DETAILS_BYTES)
    except LLMOSError as refusal:
        details = {"dropped": refusal.message}
    return msgspec.structs.replace(
        info,
        message=message,
        param=param,
        retry_after_s=retry_after_s,
        details=details,
        retryable=bool(info.retryable),
    )
