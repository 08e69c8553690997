"""Errors as the user sees them: one line and a hint on stderr, or JSON; and the exit code."""

from __future__ import annotations

import sys
from typing import Any

import typer

from llmos.cli.text import one_line, visible
from llmos.errors import LLMOSError

OK, FAILED, USAGE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 124, 130

_HINTS = {
    "server_unreachable": "start it with `llmos serve`, or point LLMOS_URL at one",
    "invalid_api_key": "set LLMOS_API_KEY, or run as the user who started the server",
    "permission_denied": "ask for a key with the role this needs (`llmos key add --role`)",
    "model_not_found": "`llmos ls` lists the models here, `llmos pull` brings one in",
    "model_rejected": "nothing was kept; mend the files and pull again",
    "queue_full": "try again later",
    "quota_exceeded": "try again later",
    "shutting_down": "try again when the server is back",
    "home_locked": "another server holds this home: see `llmos status`, or `llmos stop`",
    "disk_full": "`llmos disk` shows what uses it; `llmos rm` and `llmos gc` free space",
    "load_failed": "`llmos ps --memory` shows the reason in full",
    "model_too_large": "`llmos ps --memory` shows what holds memory; `llmos unload` frees it",
    "config_error": "`llmos config show --origin` shows every setting and where it is from",
}


def report(error: BaseException, as_json: bool) -> int:
    """Tell the user; the exit code is the value. A bug of ours keeps its traceback."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _report_usage(error, as_json)
    if isinstance(error, LLMOSError):
        _tell(_describe(error), _hint(error), as_json)
        return FAILED
    if not as_json:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    summary = f"{type(error).__name__}: {error} - this is a bug in llmos"
    _tell({"message": summary, "code": "internal_error"}, "", as_json)
    return FAILED


def _report_usage(error: typer.TyperException, as_json: bool) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "llmos"
    message = error.format_message()
    _tell({"message": message, "code": "usage"}, f"see `{path} --help`", as_json)
    return error.exit_code


def _describe(error: LLMOSError) -> dict[str, Any]:
    fields = {
        "message": error.message,
        "code": error.code,
        "param": error.param,
        "retry_after_s": error.retry_after_s,
        "details": error.details or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _hint(error: LLMOSError) -> str:
    near = error.details.get("near")
    if "did you mean" in error.message.lower() or "log" in error.details:
        return ""  # it says what to do, or what it shows does
    if isinstance(near, list) and near:
        return "did you mean " + ", ".join(str(name) for name in near[:3]) + "?"
    if error.retry_after_s:
        return f"try again in {error.retry_after_s:.0f} s"
    return _HINTS.get(error.code, "")


def _tell(fields: dict[str, Any], hint: str, as_json: bool) -> None:
    sys.stdout.flush()
    if as_json:
        import msgspec

        error = {**fields, "hint": hint} if hint else fields
        sys.stderr.write(msgspec.json.encode({"error": error}).decode() + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    line = f"error: {one_line(fields['message'])} ({fields['code']})"
    console.print(Text(line, style="red"), soft_wrap=True)
    if hint:
        console.print(Text(f"hint: {visible(hint)}", style="dim"), soft_wrap=True)
