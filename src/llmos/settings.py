"""Every package's section composed, and where each value came from.

Order: flag, then `LLMOS_SECTION__KEY` in the environment, then `llmos.toml` in the working folder,
then the user's `~/.config/llmos/llmos.toml`, then the default. An unknown key is an error. This
module and `sdk` are the only ones that read the environment.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmos.abi.settings import SettingInfo
from llmos.api.config import ApiConfig
from llmos.console.config import ConsoleConfig
from llmos.drivers.config import DriversConfig
from llmos.errors import ConfigError
from llmos.kernel.config import KernelConfig
from llmos.kernel.jobs.config import JobsConfig
from llmos.registry.config import RegistryConfig
from llmos.security.config import SecurityConfig
from llmos.storage.config import StorageConfig
from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.redact import is_secret_name
from llmos.tracking.config import TrackingConfig

PREFIX = "LLMOS_"
CLIENT_VARIABLES = frozenset({"LLMOS_URL", "LLMOS_API_KEY"})
"""Read by the sdk, not settings of the server."""
TEST_VARIABLES = frozenset({"LLMOS_TEST_DATA", "LLMOS_REQUIRE_DATA"})
_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]*@")
_LISTS = frozenset({"preload", "registry.egress", "tracking.programs", "tracking.sinks"})
"""Settings that are several values, with commas between them in the environment and in flags."""

SECRET_SUFFIX = "_API_KEY"  # noqa: S105  a name's ending
"""Of variables that may be named as the key of a remote model."""

_FROM_US = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


class Settings(BaseModel):
    """The whole configuration, frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default=Path("~/.llmos"), description="Where all state lives.")
    preload: list[str] = Field(
        default=[], description="Models loaded at the start and kept resident."
    )
    kernel: KernelConfig = KernelConfig()
    jobs: JobsConfig = JobsConfig()
    api: ApiConfig = ApiConfig()
    console: ConsoleConfig = ConsoleConfig()
    storage: StorageConfig = StorageConfig()
    registry: RegistryConfig = RegistryConfig()
    security: SecurityConfig = SecurityConfig()
    drivers: DriversConfig = DriversConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    tracking: TrackingConfig = TrackingConfig()


class Origin(NamedTuple):
    """One setting: dotted key, value, where it came from, what it means."""

    key: str
    value: Any
    origin: str
    description: str


def load(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    folders: tuple[Path, ...] | None = None,
) -> Settings:
    """The settings in force. `flags` have dotted keys. Raises ConfigError naming the key."""
    return _compose(_layers(flags, environ, folders))


def origins(
    settings: Settings,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folders: tuple[Path, ...] | None = None,
) -> list[Origin]:
    """Every setting with the layer that decided it, in the order of the sections."""
    layers = _layers(flags or {}, environ, folders)

    def origin(key: str) -> str:
        return next((name for name, values in layers if key in values), "default")

    return [
        Origin(key, value, origin(key), description)
        for key, value, description in _leaves(settings, "")
    ]


def tell(
    settings: Settings,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folders: tuple[Path, ...] | None = None,
) -> list[SettingInfo]:
    """`origins` for those who ask a server: values as JSON says them, without passwords."""
    return [
        SettingInfo(key, _plain(value), origin, description)
        for key, value, origin, description in origins(settings, flags, environ, folders)
    ]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | list):
        return value
    return _PASSWORD.sub(r"\1…@", str(value))


def worker_env(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a worker may know of our environment: where programs are, and the locale. No secrets."""
    environ = os.environ if environ is None else environ
    env = {name: environ[name] for name in _FROM_US if name in environ}
    return env | {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def secret_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those of our environment that drivers may be given as secrets: by their names they are keys.
    Whoever may register a remote model could else read any variable."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if name.endswith(SECRET_SUFFIX)}


def secret_values(environ: Mapping[str, str] | None = None) -> list[str]:
    """Values of our environment that by their names are secrets: what no bundle may hold."""
    environ = os.environ if environ is None else environ
    return [value for name, value in environ.items() if is_secret_name(name)]


MAX_SECRET_BYTES = 64 * 1024
"""A file of secrets is read so far."""


def known_secrets(home: Path, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Every value that we know to be one: of our environment, and of a home."""
    yield from secret_values(environ)
    folder = home / "secrets"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for file in (home / "token", *files):
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_SECRET_BYTES).decode(errors="replace")
        except OSError:
            continue
        yield text
        yield from text.splitlines()


Layer = tuple[str, dict[str, Any]]


def _layers(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None,
    folders: tuple[Path, ...] | None,
) -> list[Layer]:
    """(origin, values by dotted key), strongest first."""
    environ = os.environ if environ is None else environ
    if folders is None:
        config_home = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        folders = (Path.cwd(), config_home / "llmos")
    files = [folder / "llmos.toml" for folder in folders]
    return [
        ("flag", {key: _listed(key, value) for key, value in flags.items()}),
        ("environment", _from_environ(environ)),
        *((str(file), _from_file(file)) for file in files if file.is_file()),
    ]


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in environ.items():
        if name.startswith(PREFIX) and name not in CLIENT_VARIABLES | TEST_VARIABLES:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            values[key] = _listed(key, value)
    return values


def _listed(key: str, value: Any) -> Any:
    """What is several values, from a text."""
    return value.split(",") if key in _LISTS and isinstance(value, str) else value


def _from_file(file: Path) -> dict[str, Any]:
    try:
        values = dict(_flatten(tomllib.loads(file.read_text("utf-8")), ""))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if "home" in values:  # clients must find the home too, and they read no settings
        raise ConfigError(f"{file}: the home is set by --home or LLMOS_HOME only", param="home")
    return values


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _compose(layers: list[Layer]) -> Settings:
    known = {key for key, _, _ in _leaves(Settings(), "")}
    merged: dict[str, Any] = {}
    for origin, values in reversed(layers):
        for key, value in values.items():
            if key not in known:
                raise ConfigError(_unknown(key, origin, known), param=key)
            section, _, name = key.rpartition(".")
            target = merged.setdefault(section, {}) if section else merged
            target[name] = value
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}: {first['msg']}", param=key) from error


def _unknown(key: str, origin: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown setting {key} ({origin}){hint}"


def _leaves(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.description or ""
