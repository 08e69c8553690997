"""/os/v1/logs: a follower has the log as long as its key is good, and no longer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from llmos.abi.logs import Entry
from llmos.abi.principal import Principal
from llmos.errors import AuthenticationFailed, PermissionDenied, ShuttingDown
from tests.unit.api.fake_gate import SECRET, USER, Keys, edge

MAX_LOOKS = 200


@dataclass
class Log:
    """A log to which a line comes at every look; `look` is called before each."""

    look: Callable[[int], object]
    is_silent: bool = False
    num_looks: int = 0
    num_closed: int = 0

    def open(self) -> Log:
        return self

    def close(self) -> None:
        self.num_closed += 1

    def last(self, num_lines: int) -> list[Entry]:
        return [{"message": "before"}][:num_lines]

    def more(self) -> list[Entry]:
        self.num_looks += 1
        self.look(self.num_looks)
        if self.num_looks == MAX_LOOKS:
            raise ShuttingDown("the server is stopping")
        return [] if self.is_silent else [{"message": f"line {self.num_looks}"}]


def _followed(log: Log) -> tuple[str, str]:
    """All that was sent, and the code of the error at its end."""

    async def scene() -> str:
        async with edge(log_source=log, log_interval_s=0.001, keepalive_comment_s=0.005) as e:
            answer = await e.client.get("/os/v1/logs?lines=1&follow=true")
            assert answer.status_code == 200
            return answer.text

    sent = asyncio.run(scene())
    *_, last = sent.strip().split("\n\n")
    name, data = last.split("\n")
    assert name == "event: error"
    assert log.num_closed == 1
    return sent, json.loads(data.removeprefix("data: "))["error"]["code"]


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_follower_does_not_outlive_its_key(
    monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    def refuse(self: Keys, secret: str) -> Principal:
        assert secret == SECRET
        raise AuthenticationFailed("Incorrect API key provided.")

    def look(number: int) -> None:
        if number == 20:
            monkeypatch.setattr(Keys, "authenticate", refuse)

    log = Log(look, is_silent)
    sent, code = _followed(log)
    assert code == AuthenticationFailed.code
    assert 20 <= log.num_looks <= 25
    assert '{"message":"before"}' in sent


def test_nor_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(number: int) -> None:
        monkeypatch.setattr(Keys, "authenticate", lambda self, secret: USER)

    assert _followed(Log(look))[1] == PermissionDenied.code


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_good_key_follows_to_the_end(is_silent: bool) -> None:
    log = Log(lambda number: None, is_silent)
    sent, code = _followed(log)
    assert code == ShuttingDown.code
    assert log.num_looks == MAX_LOOKS
    assert is_silent == (f"line {MAX_LOOKS - 1}" not in sent)


def test_what_may_be_asked_is_told() -> None:
    async def scene() -> list[str]:
        async with edge() as e:
            told = (await e.client.get("/openapi.json")).json()
            return [p["name"] for p in told["paths"]["/os/v1/logs"]["get"]["parameters"]]

    assert asyncio.run(scene()) == ["lines", "follow"]
