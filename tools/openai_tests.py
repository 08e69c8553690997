"""Run openai-python's own generated tests against our server: `python -m tools.openai_tests`.

The tests are those of the pinned version's source distribution, unpacked below `.venv` and left as
they are. The server is an ordinary one; that the models they ask for exist (the bundled one, pulled
under their names) and that their key is the server's is all that is set up. Ids they make up
(`file_id`, `batch_id` ...) are not there, and such tests fail. What passes is written to
`tests/ratchet/openai.json`; a test that passed before and does not now is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.system.server import Server

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".venv" / "openai-tests"
RATCHET = ROOT / "tests" / "ratchet" / "openai.json"
PLUGIN = Path(__file__).with_name("openai_plugin.py")
EXTRA = ("pytest-asyncio", "aiohttp")
"""What their tests need and ours do not; installed beside, so that our suite never sees it."""

MODELS = ("gpt-6-astra", "gpt-3.5-turbo-instruct")
"""Names of models that the tests ask for."""

SUITES = (
    "tests/api_resources/test_files.py",
    "tests/api_resources/test_batches.py",
    "tests/api_resources/test_responses.py",
    "tests/api_resources/responses",
    "tests/api_resources/chat",
    "tests/api_resources/test_completions.py",
    "tests/api_resources/test_models.py",
)


def pinned() -> str:
    """The version of openai that constraints.txt names."""
    match = re.search(r"^openai==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit("constraints.txt pins no openai")
    return match[1]


def pip(*arguments: str) -> None:
    """Ends the program with what pip said if it fails."""
    command = [sys.executable, "-m", "pip", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)


def sources(version: str, sdist: Path | None) -> Path:
    """The unpacked source distribution, fetched once."""
    folder = WORK / f"openai-{version}"
    if not (folder / "tests").is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        if sdist is None:
            wanted = ["--no-binary", "openai", "--no-deps", f"openai=={version}"]
            pip("download", *wanted, "-d", str(WORK))
            sdist = WORK / f"openai-{version}.tar.gz"
        with tarfile.open(sdist) as archive:
            archive.extractall(WORK, filter="data")
    return folder


def extras() -> Path:
    """A folder with the packages that only their tests need, and our plugin."""
    site = WORK / "site"
    if not (site / "pytest_asyncio").is_dir():
        pip("install", "-c", str(ROOT / "constraints.txt"), "--target", str(site), *EXTRA)
        for name in ("pytest", "_pytest"):  # one of them is enough
            shutil.rmtree(site / name, ignore_errors=True)
    shutil.copy(PLUGIN, site / PLUGIN.name)
    return site


def run(folder: Path, site: Path) -> dict[str, str]:
    """What became of each test, by its name."""
    with tempfile.TemporaryDirectory(prefix="llmos-openai-") as scratch:
        server = Server(Path(scratch) / "home").start()
        try:
            for name in MODELS:
                source = f"file:{ROOT / 'src' / 'llmos' / 'pilot'}"
                pulled = server.cli("pull", source, "--name", name)
                if pulled.returncode != 0:
                    raise SystemExit(pulled.stderr)
            outcomes = Path(scratch) / "outcomes.json"
            env = {
                **os.environ,
                "TEST_API_BASE_URL": server.url + "/v1",
                "LLMOS_TEST_KEY": server.token,
                "LLMOS_TEST_OUTCOMES": str(outcomes),
                "PYTHONPATH": str(site),
            }
            command = [sys.executable, "-m", "pytest", "-q", "-p", "openai_plugin", *SUITES]
            command += ["-o", "addopts=", "-p", "no:cacheprovider", "--timeout=60", "--tb=line"]
            log = WORK / "pytest.log"
            with log.open("w") as out:
                subprocess.run(command, cwd=folder, env=env, stdout=out, stderr=out, check=False)
            if not outcomes.exists():
                raise SystemExit(f"the tests did not run; see {log}")
            found: dict[str, str] = json.loads(outcomes.read_text())
            return found
        finally:
            server.stop()


def lost_of(before: dict[str, Any], version: str, outcomes: dict[str, str]) -> list[str]:
    """Tests that passed before and do not now. Another version has other tests."""
    if before.get("openai") != version:
        return []
    passed = (name for name, was in before["tests"].items() if was == "pass")
    return [name for name in passed if outcomes.get(name) != "pass"]


def main() -> int:
    """0 unless something that passed does not pass any more."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sdist", type=Path, help="a source distribution that is here already")
    version = pinned()
    outcomes = run(sources(version, parser.parse_args().sdist), extras())
    print(", ".join(f"{n} {what}" for what, n in sorted(Counter(outcomes.values()).items())))
    before = json.loads(RATCHET.read_text()) if RATCHET.exists() else {}
    if lost := lost_of(before, version, outcomes):
        print(f"{len(lost)} passed before:", *lost, sep="\n  ")
        return 1
    RATCHET.parent.mkdir(exist_ok=True)
    written = {"openai": version, "models": list(MODELS), "tests": dict(sorted(outcomes.items()))}
    RATCHET.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
