"""What starts often or lives in another environment loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "tokenizers", "ray", "huggingface_hub", "matplotlib", "pandas"}
WEB = {"starlette", "fastapi", "uvicorn"}
SQL = {"sqlalchemy", "alembic"}
EDGE = {"pydantic", "pydantic_settings", "httpx", "typer", "rich", "click", "jinja2", "numpy"}

READERS = {"tokenizers", "jinja2", "numpy"}
PREPARERS = (
    "llmos.drivers.text.prepare",
    "llmos.drivers.encoder.prepare",
    "llmos.drivers.vision.prepare",
    "llmos.drivers.gguf.prepare",
    "llmos.drivers.onnx.prepare",
    "llmos.drivers.openai.prepare",
)

CASES = {
    "llmos.abi": HEAVY | WEB | SQL | EDGE,
    "llmos.errors": HEAVY | WEB | SQL | EDGE,
    "llmos.ipc": HEAVY | WEB | SQL | EDGE,
    "llmos.worker": HEAVY | WEB | SQL | EDGE,
    "llmos.kernel": HEAVY | WEB | SQL,
    "llmos.drivers.echo": HEAVY | WEB | SQL | EDGE,
    # of the tokenizer's worker: what reads files of tokens, templates and pixels, no more
    **dict.fromkeys(PREPARERS, (HEAVY | WEB | SQL | EDGE) - READERS),
    # httpx brings rich and click along where they are installed
    "llmos.sdk": (HEAVY | WEB | SQL | EDGE) - {"httpx", "rich", "click"},
    "llmos.settings": HEAVY | WEB | SQL,
    "llmos.cli.main": HEAVY | WEB | SQL | {"numpy"},
}

# a package is loaded with everything below it
PROBE = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
below = pkgutil.walk_packages(getattr(package, "__path__", []), sys.argv[1] + ".")
for module in below:
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("name", CASES)
def test_loads_nothing_heavy(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "llmos" in loaded
    assert not loaded & CASES[name]
