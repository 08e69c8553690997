"""A setting of the server as it is in force."""

from __future__ import annotations

from typing import Any

import msgspec


class SettingInfo(msgspec.Struct, frozen=True):
    """`origin`: flag, environment, a file's path, or default. A secret's value is not told."""

    key: str
    value: Any
    origin: str
    description: str = ""


class SettingList(msgspec.Struct, frozen=True):
    settings: list[SettingInfo]
