"""What `llmos --help` loads, and how every command's help looks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from llmos.cli.main import app

HEAVY = ("torch", "transformers", "sqlalchemy", "starlette", "httpx", "rich", "numpy")
BY_TYPER = "pydantic"  # Typer itself loads it to read any option's value, not for the list
COMMANDS = [
    *("serve", "run", "pull", "ls", "show", "quantize", "rm", "load", "pin", "unload"),
    "promote",
    *(
        "ps",
        "kill",
        "status",
        "top",
        "train",
        *("runs ls", "runs show", "runs compare"),
        "nice",
        "wait",
        "logs",
        "why",
        "sim",
        "backup",
        "restore",
        "disk",
        "gc",
        "infer",
        "suspend",
        "resume",
        "stop",
        "version",
        *(f"job {name}" for name in ("submit", "ls", "show", "logs", "cancel", "retry", "rm")),
        *("job programs", "job schedules", "job unschedule"),
        *(f"task {name}" for name in ("run", "ls", "show", "cancel", "result", "generate")),
        *(f"task {name}" for name in ("classify", "summarize", "translate", "extract")),
        *("task qa", "task embed", "task rerank", "models search", "models info"),
        *("file put", "file ls", "file get", "file rm"),
        *(f"eval {name}" for name in ("run", "show", "result", "harness")),
        "pipeline run",
        "pipeline show",
        "key add",
        "key ls",
        "key revoke",
        "config show",
        "config path",
        "debug bundle",
        "debug doctor",
    ),
]


@pytest.mark.parametrize("args", ["--help", "run --help", "--version", "key --help"])
def test_help_loads_nothing_heavy(args: str) -> None:
    forbidden = (*HEAVY, BY_TYPER) if args == "--help" else HEAVY
    snippet = (
        "import sys\n"
        "from llmos.cli.main import main\n"
        f"code = main({args.split()!r})\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        f"print('LOADED', sorted(loaded & set({forbidden!r})), code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True
    )
    assert "LOADED [] 0" in done.stderr
    assert done.stdout


def test_importing_the_package_loads_no_client() -> None:
    snippet = (
        "import sys, llmos, llmos.sdk\n"
        "assert 'httpx' not in sys.modules\n"
        "assert llmos.Client.__name__ == 'Client' and llmos.AsyncClient\n"
        "assert 'httpx' in sys.modules and 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", snippet], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example_and_json(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"llmos {command}" in result.output.partition("Examples:")[2]
    assert "--json" in result.output


def test_the_list_of_commands_is_complete_and_not_cut_off() -> None:
    result = CliRunner().invoke(app, ["--help"], terminal_width=80)
    listed = result.output.partition("Commands:")[2].partition("Examples:")[0]
    names = [line.split()[0] for line in listed.strip().splitlines()]
    assert set(names) == {command.split()[0] for command in COMMANDS}
    assert "..." not in listed


def test_python_m_llmos_is_the_same_command() -> None:
    for module in ("llmos", "llmos.cli.main"):
        done = subprocess.run(
            [sys.executable, "-m", module, "version"], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("llmos ")
