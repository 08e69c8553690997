"""Pass 1: the whole file is read once and refused as a whole, with the number of every bad line.

What a line's body asks for is not looked at here: a field that a route does not know is an error of
that line alone. Errors have the shape of OpenAI's `batch.errors`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import InvalidRequest
from llmos.programs.batch.lines import MAX_LINE_BYTES, Line, read_lines

MAX_LINES = 1_000_000
"""Of one file, blank ones included."""

MAX_ERRORS = 500
"""Told of one file; reading stops there."""

MAX_CUSTOM_ID_CHARS = 512
FIELDS = ("custom_id", "method", "url", "body")
LOOK_LINES = 256
"""Lines between two looks at how far it is and whether to stop."""


class Fault(msgspec.Struct, frozen=True):
    """One entry of `batch.errors.data`. `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BadFile(InvalidRequest):
    """The input file is refused; `details["errors"]` is OpenAI's list of why."""

    @classmethod
    def of(cls, faults: list[Fault]) -> BadFile:
        """With the first fault in the message."""
        first, more = faults[0], len(faults) - 1
        where = "" if first.line is None else f"line {first.line}: "
        also = f" (and {more} more)" if more else ""
        errors = {"object": "list", "data": msgspec.to_builtins(faults)}
        return cls(f"{where}{first.message}{also}", param="input_file", details={"errors": errors})


class Checker:
    """Looks at lines in their order; remembers of each its id's hash, no more."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._seen: set[int] = set()
        self.faults: list[Fault] = []
        self.num_requests = 0

    def look(self, line: Line) -> None:
        """Adds to `faults` what is wrong with it, the first thing only."""
        if line.raw == b"":
            return
        self.num_requests += 1
        fault = self._find_fault(line)
        if fault is not None:
            self.faults.append(fault)

    def _find_fault(self, line: Line) -> Fault | None:
        number = line.number
        if line.raw is None:
            return Fault("line_too_long", f"The line is over {MAX_LINE_BYTES} bytes.", number)
        try:
            request = msgspec.json.decode(line.raw)
        except UnicodeDecodeError:
            return Fault("invalid_encoding", "The line is not UTF-8.", number)
        except RecursionError:
            return Fault("invalid_json_line", "The line is nested too deeply.", number)
        except msgspec.DecodeError as error:
            text = f"The line is not valid JSON: {error}."
            return Fault("invalid_json_line", text, number)
        if not isinstance(request, dict):
            return Fault("invalid_json_line", "The line is not a JSON object.", number)
        return self._of_fields(request, number) or self._of_id(request["custom_id"], number)

    def _of_fields(self, request: dict[str, Any], number: int) -> Fault | None:
        for name in FIELDS:
            if name not in request:
                text = f"Missing required parameter: '{name}'."
                return Fault("missing_required_parameter", text, number, name)
        for name in request:
            if name not in FIELDS:
                text = f"Unknown parameter: {name[:64]!r}; a line has {', '.join(FIELDS)}."
                return Fault("unknown_parameter", text, number, name[:64])
        if request["method"] != "POST":
            return Fault("invalid_method", "The method of a line is 'POST'.", number, "method")
        if request["url"] != self._endpoint:
            text = f"The url of a line is the batch's endpoint, {self._endpoint!r}."
            return Fault("mismatched_url", text, number, "url")
        if not isinstance(request["body"], dict):
            return Fault("invalid_type", "The body is not a JSON object.", number, "body")
        return None

    def _of_id(self, custom_id: Any, number: int) -> Fault | None:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS:
            text = f"'custom_id' is a text of 1 to {MAX_CUSTOM_ID_CHARS} characters."
            return Fault("invalid_custom_id", text, number, "custom_id")
        # of a million ids, two have the same 64 bits once in 37 million files
        digest = hashlib.blake2b(custom_id.encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        if key in self._seen:
            text = f"The custom_id {custom_id[:64]!r} is in the file twice."
            return Fault("duplicate_custom_id", text, number, "custom_id")
        self._seen.add(key)
        return None


def check_file(path: str, endpoint: str, look: Callable[[int, int], bool]) -> int:
    """How many requests the file holds; -1 when `look(bytes read, bytes in all)`, called now and
    then, said to stop. Raises BadFile."""
    checker = Checker(endpoint)
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for line in read_lines(file):
            checker.look(line)
            if line.number > MAX_LINES:
                text = f"A file holds at most {MAX_LINES} lines."
                checker.faults.append(Fault("too_many_lines", text, line.number))
                break
            if len(checker.faults) >= MAX_ERRORS:
                break
            if line.number % LOOK_LINES == 0 and not look(file.tell(), size):
                return -1
    if checker.faults:
        raise BadFile.of(checker.faults)
    if not checker.num_requests:
        raise BadFile.of([Fault("empty_file", "The input file has no request.")])
    return checker.num_requests
