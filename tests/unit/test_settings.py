"""Where a setting comes from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from llmos.errors import ConfigError
from llmos.settings import load, origins, worker_env


def test_flag_beats_environment_beats_project_beats_user_beats_default(tmp_path: Path) -> None:
    project, user = tmp_path / "project", tmp_path / "user"
    for folder, port in ((project, 3), (user, 4)):
        folder.mkdir()
        (folder / "llmos.toml").write_text(f"[api]\nport = {port}\nmax_prompts = {port}\n")
    (user / "llmos.toml").write_text("[api]\nport = 4\n[kernel]\nnum_slots = 4\n")
    environ = {"LLMOS_API__PORT": "2", "LLMOS_URL": "http://x", "PATH": "/bin"}
    layers = {"environ": environ, "folders": (project, user)}
    assert load({"api.port": "1"}, **layers).api.port == 1  # type: ignore[arg-type]
    settings = load({}, **layers)  # type: ignore[arg-type]
    assert (settings.api.port, settings.api.max_prompts, settings.kernel.num_slots) == (2, 3, 4)
    where = {o.key: o.origin for o in origins(settings, {}, **layers)}  # type: ignore[arg-type]
    assert where["api.port"] == "environment"
    assert where["api.max_prompts"] == str(project / "llmos.toml")
    assert where["kernel.num_slots"] == str(user / "llmos.toml")
    assert where["kernel.keep_alive_s"] == "default"


@pytest.mark.parametrize(
    ("flags", "environ", "says"),
    [
        ({"api.prot": 1}, {}, "api.port"),
        ({}, {"LLMOS_API__PROT": "1"}, "api.prot"),
        ({}, {"LLMOS_HOMER": "/x"}, "home"),
        ({"api.port": "many"}, {}, "api.port"),
        ({"kernel.memory_fraction": 2}, {}, "memory_fraction"),
        ({"kernel": 2}, {}, "kernel"),
    ],
)
def test_a_wrong_setting_names_itself(
    flags: dict[str, object], environ: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(flags, environ=environ, folders=())


def _numbers() -> list[str]:
    """Every setting that is a number with a fraction."""
    sections = {name: type(value) for name, value in load({}, environ={}, folders=()) if value}
    return [
        f"{section}.{name}"
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name, field in kind.model_fields.items()
        if field.annotation is float
    ]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_without_end_is_refused_where_it_is_set(value: str) -> None:
    numbers = _numbers()
    assert {"kernel.nice_step_s", "api.body_timeout_s"} <= set(numbers)
    for key in numbers:
        with pytest.raises(ConfigError, match=key):
            load({key: value}, environ={}, folders=())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "llmos.toml").write_text("[api\n")
    with pytest.raises(ConfigError, match=r"llmos\.toml"):
        load({}, environ={}, folders=(tmp_path,))


def test_the_home_is_not_set_where_clients_would_not_look(tmp_path: Path) -> None:
    (tmp_path / "llmos.toml").write_text('home = "/x"\n')
    with pytest.raises(ConfigError, match="LLMOS_HOME"):
        load({}, environ={}, folders=(tmp_path,))


def test_every_setting_is_explained() -> None:
    settings = load({}, environ={}, folders=())
    explained = origins(settings, {}, environ={}, folders=())
    assert all(origin.description for origin in explained)
    assert len(explained) > 40


def test_workers_learn_no_secrets() -> None:
    env = worker_env({"PATH": "/bin", "HF_TOKEN": "s", "LLMOS_API_KEY": "s", "AWS_SECRET": "s"})
    assert env["PATH"] == "/bin"
    assert "s" not in env.values()


@pytest.mark.parametrize("key", ["preload", "registry.egress"])
def test_several_values_are_a_text_with_commas(key: str) -> None:
    variable = "LLMOS_" + key.upper().replace(".", "__")
    for settings in (
        load({key: "a,b"}, environ={}, folders=()),
        load({key: ["a", "b"]}, environ={}, folders=()),
        load({}, environ={variable: "a,b"}, folders=()),
    ):
        section = settings.registry if "." in key else settings
        assert getattr(section, key.rpartition(".")[2]) == ["a", "b"]
