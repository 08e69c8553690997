"""Where the client looks for its server, and whom it gives the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.sdk.locate import find_home, find_server_file, locate


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "api.sock").touch()
    return tmp_path


def test_the_home_in_the_environment_gives_socket_and_token(home: Path) -> None:
    endpoint = locate(environ={"LLMOS_HOME": str(home)})
    assert endpoint.socket == home / "api.sock"
    assert endpoint.api_key == "secret"
    assert endpoint.home == home
    assert "secret" not in repr(endpoint)


def test_a_url_in_the_environment_wins_and_never_gets_the_homes_token(home: Path) -> None:
    environ = {"LLMOS_HOME": str(home), "LLMOS_URL": "http://far:8400/"}
    endpoint = locate(environ=environ)
    assert (endpoint.url, endpoint.socket, endpoint.api_key) == ("http://far:8400", None, None)
    assert locate(environ={**environ, "LLMOS_API_KEY": "k"}).api_key == "k"


def test_arguments_win_over_the_environment(home: Path) -> None:
    environ = {"LLMOS_URL": "http://far:8400", "LLMOS_API_KEY": "k"}
    assert locate("http://near:1", "mine", environ=environ).url == "http://near:1"
    assert locate("http://near:1", "mine", environ=environ).api_key == "mine"
    endpoint = locate(home=home, environ=environ)
    assert endpoint.socket == home / "api.sock"
    assert endpoint.api_key == "k"


def test_without_a_socket_the_server_file_names_the_url(home: Path) -> None:
    (home / "api.sock").unlink()
    (home / "server.json").write_text(
        '{"url": "http://127.0.0.1:9/", "pid": 1, "started_ns": 2, "version": "x", "more": 0}'
    )
    endpoint = locate(home=home, environ={})
    assert (endpoint.url, endpoint.socket) == ("http://127.0.0.1:9", None)
    assert endpoint.api_key == "secret"
    assert endpoint.home == home


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1, "pid": 2}', '{"url": "x"}'])
def test_a_broken_server_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert find_server_file(tmp_path) is None
    assert locate(home=tmp_path, environ={}).socket == tmp_path / "api.sock"


def test_the_home_is_absolute_and_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert find_home(environ={}) == Path("/home/someone/.llmos")
    assert find_home("~/x", environ={}) == Path("/home/someone/x")
    assert find_home("rel", environ={}).is_absolute()
    assert find_home(environ={"LLMOS_HOME": ""}) == Path("/home/someone/.llmos")
