"""Run clients that other people wrote against our server: `python -m tools.clients`.

simonw/llm is used as its users do, LangChain's OpenAI classes go through LangChain's own standard
suites; both are installed in `.venv-clients`. What became of each test is written to
`tests/ratchet/clients.json`; a test that passed before and does not now is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.system.server import Server
from tools import engine_venv

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
SITE = ROOT / ".venv-clients"
RATCHET = ROOT / "tests" / "ratchet" / "clients.json"
SUITES = ("suite_llm.py", "suite_langchain.py")
PACKAGES = ("langchain-openai", "langchain-tests", "llm", "openai")
EMBEDDER = "embedding"
TIMEOUT_S = 120
"""Of a test."""

PATIENCE_S = 300.0
"""Until the server is ready, on a machine that has other things to do."""


def versions() -> dict[str, str]:
    """Of the clients, as they are installed there."""
    (site,) = SITE.glob("lib/python3.*/site-packages")
    found = {
        found.metadata["Name"].lower(): found.version
        for found in metadata.distributions(path=[str(site), *sys.path])
    }
    return {name: found[name] for name in PACKAGES}


def environment(server: Server, outcomes: Path) -> dict[str, str]:
    """Of the suites: nothing of ours but where the server is."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(outcomes.parent),
        "PYTHONPATH": str(ROOT / "tools"),
        "LLMOS_TEST_URL": server.url + "/v1",
        "LLMOS_TEST_KEY": server.token,
        "LLMOS_TEST_EMBEDDER": EMBEDDER,
        "LLMOS_TEST_TOKENIZER": str(ROOT / "src" / "llmos" / "pilot" / "tokenizer.json"),
        "LLMOS_TEST_OUTCOMES": str(outcomes),
    }


def command(arguments: list[str]) -> list[str]:
    """pytest, without any configuration of ours."""
    made = [str(SITE / "bin" / "python"), "-m", "pytest", "-q", "-p", "openai_plugin"]
    made += ["-c", os.devnull, f"--rootdir={FOLDER}", "-o", "asyncio_mode=auto"]
    for scope in ("fixture", "test"):  # their clients outlive a test, and the loop must, too
        made += ["-o", f"asyncio_default_{scope}_loop_scope=session"]
    return [*made, "-p", "no:cacheprovider", f"--timeout={TIMEOUT_S}", *SUITES, *arguments]


def run(arguments: list[str]) -> dict[str, str]:
    """What became of each test, by its name."""
    with tempfile.TemporaryDirectory(prefix="llmos-clients-") as scratch:
        server = Server(Path(scratch) / "home", ready_timeout_s=PATIENCE_S)
        outcomes = Path(scratch) / "outcomes.json"
        try:
            subprocess.run(
                command(arguments),
                cwd=FOLDER,
                env=environment(server.start(), outcomes),
                check=False,
            )
        finally:
            server.kill()
        if not outcomes.exists():
            raise SystemExit("the tests did not run")
        found: dict[str, str] = json.loads(outcomes.read_text())
        return found


def lost_of(before: dict[str, Any], outcomes: dict[str, str]) -> list[str]:
    """Tests that passed before and do not now."""
    passed = (name for name, was in before.get("tests", {}).items() if was == "pass")
    return [name for name in passed if outcomes.get(name) != "pass"]


def main() -> int:
    """0 unless something that passed does not pass any more."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pytest", nargs="*", help="for pytest; nothing is written then")
    arguments: list[str] = parser.parse_args().pytest
    if (code := engine_venv.make("clients")) != 0:
        return code
    outcomes = run(arguments)
    print(", ".join(f"{n} {what}" for what, n in sorted(Counter(outcomes.values()).items())))
    if arguments:
        return 0
    before = json.loads(RATCHET.read_text()) if RATCHET.exists() else {}
    if lost := lost_of(before, outcomes):
        print(f"{len(lost)} passed before:", *lost, sep="\n  ")
        return 1
    written = {"packages": versions(), "tests": dict(sorted(outcomes.items()))}
    RATCHET.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
