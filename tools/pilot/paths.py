"""Where the bundled model and the training's own files lie. Knows no torch."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "src" / "llmos" / "pilot"
WORK = ROOT / "build" / "pilot"
MAX_BUNDLE_BYTES = 12 * 1000 * 1000
