"""Where the small models and what they are made of lie. Knows no torch."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).parent / "words"
SENTIMENT = ROOT / "src" / "llmos" / "bundled" / "sentiment"
EMBEDDING = ROOT / "src" / "llmos" / "bundled" / "embedding"
MAX_FOLDER_BYTES = 6_000_000
