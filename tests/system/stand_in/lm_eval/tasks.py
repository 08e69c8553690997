"""Tasks of a folder: YAML files over JSONL files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


class TaskManager:
    def __init__(self, include_path: str | None = None, include_defaults: bool = True) -> None:
        files = [] if include_path is None else sorted(Path(include_path).glob("*.yaml"))
        read = [yaml.safe_load(file.read_text("utf-8")) for file in files]
        self.configs: dict[str, dict[str, Any]] = {config["task"]: config for config in read}

    @property
    def all_tasks(self) -> list[str]:
        return sorted(self.configs)

    def rows(self, task: str) -> list[dict[str, Any]]:
        config = self.configs[task]
        file = Path(config["dataset_kwargs"]["data_files"][config["test_split"]])
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
