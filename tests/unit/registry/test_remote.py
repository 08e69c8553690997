from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.registry import ModelVersion, PullOptions
from llmos.abi.remote import REMOTE_FILE, Endpoint, Price, RemoteSpec, parse_remote, read_spec
from llmos.errors import InvalidRequest, PermissionDenied
from llmos.registry.intake import is_allowed
from llmos.registry.names import parse_source
from tests.unit.registry.conftest import MakeWorld, World

SOURCE = "openai:https://api.example.com/v1#Org/Some-Model:8b"


async def pull(
    w: World, source: str = SOURCE, name: str | None = None, **fields: Any
) -> ModelVersion:
    return await w.registry.pull(source, name, lambda _: None, PullOptions(**fields))


def files_of(version: ModelVersion) -> list[str]:
    return [path.name for path in Path(version.folder).iterdir()]


def spec_of(version: ModelVersion) -> RemoteSpec:
    return read_spec(json.loads((Path(version.folder) / REMOTE_FILE).read_bytes()))


def test_it_comes_in_as_one_file(world: MakeWorld) -> None:
    async def main() -> None:
        async with world() as w:
            version = await pull(w)
            assert (version.ref, version.driver) == ("org/some-model:1", "openai")
            assert (version.format, version.egress) == ("openai", ["api.example.com:443"])
            assert version.chosen == "a test"
            assert version.source == SOURCE
            assert files_of(version) == [REMOTE_FILE]
            assert spec_of(version) == parse_remote(SOURCE[7:])
            assert await pull(w) == version  # the same again is the same
            other = await pull(w, remote=RemoteSpec([Endpoint("https://b.example.com", "m", "K")]))
            assert (other.name, other.secrets) == ("m", ["K"])
            assert other.source == "openai:https://b.example.com#m"
        async with world() as w:
            assert w.registry.resolve("org/some-model").egress == ["api.example.com:443"]

    asyncio.run(main())


def test_a_new_price_is_a_new_version(world: MakeWorld) -> None:
    async def main() -> None:
        async with world() as w:
            for number, price in enumerate([None, Price(1.0, 2.0), Price(1.0, 3.0)], 1):
                spec = RemoteSpec([Endpoint("https://a/v1", "m", price=price)])
                assert (await pull(w, remote=spec)).version == str(number)

    asyncio.run(main())


def test_hosts_that_are_not_allowed(world: MakeWorld) -> None:
    async def main() -> None:
        async with world(egress=["*.example.com", "localhost:8000"]) as w:
            await pull(w)
            await pull(w, "openai:http://localhost:8000/v1#m")
            for url in (
                "http://localhost:8001/v1",
                "https://example.org/v1",
                "https://example.com",
            ):
                with pytest.raises(PermissionDenied, match=r"registry\.egress"):
                    await pull(w, f"openai:{url}#m", "refused")
            assert {v.name for v in w.registry.list()} == {"org/some-model", "m"}

    asyncio.run(main())


def test_only_remote_sources_are_remote(world: MakeWorld, tmp_path: Path) -> None:
    """A folder that has the file of a remote model is none: it could name any host."""
    (tmp_path / REMOTE_FILE).write_text(
        json.dumps({"endpoints": [{"url": "http://h", "model": "m"}]})
    )

    async def main() -> None:
        async with world() as w:
            with pytest.raises(InvalidRequest, match="remote"):
                await pull(w, "hf:org/name", remote=RemoteSpec([Endpoint("https://a", "m")]))
            with pytest.raises(Exception, match=r"config\.json"):
                await pull(w, f"file:{tmp_path}", "m")

    asyncio.run(main())


@pytest.mark.parametrize(
    "source",
    [
        "openai:",
        "openai:https://host/v1",
        "openai:https://host/v1#",
        "openai:ftp://host/v1#m",
        "openai:host/v1#m",
        "openai:https://#m",
        "openai:https://user:pass@host/v1#m",
        "openai:https://host/v1?key=1#m",
        "openai:https://host:port/v1#m",
        "openai:https://ho st/v1#m",
        "openai:https://host/v 1#m",
    ],
)
def test_sources_that_are_none(source: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_source(source)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({}, "endpoints"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": [{"url": "https://h"}]}, "model"),
        ({"endpoints": [{"url": "https://h", "model": "m", "key": "sk-abc"}]}, "key"),
        ({"endpoints": [{"url": "https://h", "model": "m", "token": "x"}]}, "token"),
        ({"endpoints": [{"url": "https://h", "model": "m", "price": {"input": -1}}]}, "input"),
        ({"endpoints": [{"url": "https://h", "model": "m"}], "timeouts": {"connect_s": 0}}, "conn"),
        ({"endpoints": [{"url": "https://h", "model": "m"}], "context_length": 1}, "context"),
        ({"endpoints": [{"url": "https://h", "model": "m", "extra": {"stream": 1}}]}, "stream"),
        ("text", "object"),
    ],
)
def test_specs_that_are_none(raw: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        read_spec(raw)


@pytest.mark.parametrize(
    ("host", "pattern", "allowed"),
    [
        ("a.b:443", "*", True),
        ("a.b:443", "a.b", True),
        ("a.b:443", "a.b:443", True),
        ("a.b:443", "A.B", True),
        ("a.b:8443", "a.b:443", False),
        ("evil-a.b:443", "a.b", False),
        ("x.a.b:443", "*.a.b", True),
        ("a.b:443", "*.a.b", False),
        ("127.0.0.1:80", "*", True),
        ("169.254.169.254:80", "*", False),
        ("169.254.169.254:80", "*:*", False),
        ("169.254.169.254:80", "169.254.*", True),
        ("2852039166:80", "*", False),
        ("0xa9fea9fe:80", "*", False),
        ("[fe80::1]:80", "*", False),
        ("[::ffff:169.254.169.254]:80", "*", False),
        ("0.0.0.0:80", "*", False),
    ],
)
def test_patterns_of_egress(host: str, pattern: str, allowed: bool) -> None:
    assert is_allowed(host, [pattern]) is allowed
