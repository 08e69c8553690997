"""The conversation of `run`: a line is a turn, a slash is a command, Ctrl-C stops the answer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.cli.answer import Answer, ask, print_answer
from llmos.cli.config import LIMITS
from llmos.cli.failure import report
from llmos.cli.output import note
from llmos.errors import LLMOSError, ServerUnreachable

if TYPE_CHECKING:
    from llmos.abi.registry import ModelVersion
    from llmos.sdk import Client

HELP = '''/exit          leave (Ctrl-D too)
/clear         forget the conversation
/system TEXT   set the system message (no TEXT: drop it)
/help          this
"""            begins and ends a message of several lines; pasted lines are one message
Ctrl-C         stops an answer; at the prompt, drops the line'''

QUOTE = '"""'
PROMPT = ">>> "
CONTINUED = "... "


class Conversation:
    """The messages so far. In raw mode nothing is remembered: every line is continued alone."""

    def __init__(self, system: str | None, *, is_raw: bool) -> None:
        self.system = system
        self.is_raw = is_raw
        self.turns: list[dict[str, Any]] = []

    def asked(self, line: str) -> str | list[dict[str, Any]]:
        """What to send for the next line."""
        if self.is_raw:
            return f"{self.system}\n{line}" if self.system else line
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns, {"role": "user", "content": line}]

    def remember(self, line: str, answer: str) -> None:
        """Keep a turn; an answer that was stopped counts as far as it came."""
        if not self.is_raw and answer:
            self.turns += [
                {"role": "user", "content": line},
                {"role": "assistant", "content": answer},
            ]


def converse(
    client: Client,
    model: ModelVersion,
    system: str | None,
    sampling: dict[str, Any],
    *,
    is_raw: bool,
) -> None:
    """Read, ask, print, until the end of input or `/exit`."""
    conversation = Conversation(system, is_raw=is_raw)
    kind = "continues each text alone" if is_raw else "chat"
    note(f"{model.ref} ({kind}); /help for help, /exit to leave")
    with history(client.endpoint.home):
        going_on = True
        while going_on:
            try:
                line = read_message()
                if line is None:
                    going_on = False
                    note("")
                elif line.startswith("/"):
                    going_on = obey(line, conversation)
                elif line.strip():
                    turn(client, model, line, conversation, sampling)
            except KeyboardInterrupt:  # at the prompt: the line is dropped
                note("")


def turn(
    client: Client,
    model: ModelVersion,
    line: str,
    conversation: Conversation,
    sampling: dict[str, Any],
) -> None:
    """One question and its answer; a failure ends the turn, not the conversation."""
    answer = Answer()
    try:
        asked = conversation.asked(line)
        print_answer(
            lambda: ask(client, model, asked, sampling), answer, f"waiting for {model.ref}"
        )
    except KeyboardInterrupt:
        note("(stopped)")
    except LLMOSError as error:
        if isinstance(error, ServerUnreachable) and not answer.text:
            raise
        report(error, as_json=False)
        return
    conversation.remember(line, answer.text)


def obey(line: str, conversation: Conversation) -> bool:
    """Do what a slash command says; False to leave."""
    word, _, rest = line.strip().partition(" ")
    if word in {"/exit", "/quit", "/bye"}:
        return False
    if word == "/clear":
        conversation.turns.clear()
        note("forgotten")
    elif word == "/system":
        conversation.system = rest.strip() or None
        note("the system message is set" if conversation.system else "no system message")
    elif word == "/help":
        note(HELP)
    else:
        note(f"there is no {word}; /help lists the commands")
    return True


def read_message() -> str | None:
    """The next message, of one line or several; None at the end of input."""
    try:
        lines = [input(PROMPT)]
        if lines[0].lstrip().startswith(QUOTE):
            return _read_quoted(lines[0].lstrip().removeprefix(QUOTE))
        while _is_pasting():
            lines.append(input())
    except EOFError:
        return None
    return "\n".join(lines)


def _read_quoted(first: str) -> str:
    lines = [first]
    while QUOTE not in lines[-1]:
        lines.append(input(CONTINUED))
    lines[-1] = lines[-1].partition(QUOTE)[0]
    return "\n".join(lines).strip("\n")


def _is_pasting() -> bool:
    """Whether more input is there already: nobody types that fast."""
    import select

    try:
        ready, _, _ = select.select([sys.stdin], [], [], LIMITS.paste_gap_s)
    except (OSError, ValueError):  # not something that can be waited for
        return False
    return bool(ready) and sys.stdin.isatty()


@contextlib.contextmanager
def history(home: Path | None) -> Iterator[None]:
    """Line editing with the lines of earlier conversations, kept in the home, for its owner."""
    try:
        import readline
    except ImportError:  # a Python without it: no editing, all else works
        yield
        return
    file = home / "history" if home is not None else None
    if file is not None:
        with contextlib.suppress(OSError):
            readline.read_history_file(file)
    readline.set_history_length(LIMITS.max_history_lines)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                file.touch(mode=0o600)
                readline.write_history_file(file)
