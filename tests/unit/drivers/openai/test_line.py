"""The thread that talks to remotes, where it cannot begin."""

from __future__ import annotations

from typing import NoReturn

import pytest

from llmos.abi.remote import parse_remote
from llmos.drivers.openai import line as line_module
from llmos.drivers.openai.line import Line
from llmos.errors import LoadFailed


def test_a_client_that_cannot_be_made_fails_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have waited for ever."""

    def refuse(*_: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "cacert.pem")

    monkeypatch.setattr(line_module, "Courier", refuse)
    line = Line(parse_remote("http://127.0.0.1:1/v1#m"), {})
    with pytest.raises(LoadFailed, match="No such file"):
        line.open()
    assert not line.is_alive
    line.close()
