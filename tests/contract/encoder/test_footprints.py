"""What is reserved for a model that answers item by item, and what its process holds at most."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos.weights import inspect
from tests.contract.encoder.test_captions import make_captioner
from tests.unit.drivers.encoder.folders import SIZES, WRITER, make_folder
from tests.unit.drivers.encoder.media import blob, png
from tests.unit.drivers.encoder.voices import SIZES as VOICE
from tests.unit.drivers.encoder.voices import make_voice

TEXT = "the cat sat on a mat, who lives in new york or paris? " * 40
LARGE = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "vocab_size": 30_000,
    "max_position_embeddings": 512,
}
LARGE_WRITER = {"d_model": 256, "d_ff": 1024, "d_kv": 64, "vocab_size": 30_000, "num_layers": 4}
LARGE_VOICE = {
    "hidden_size": 192,
    "flow_size": 192,
    "ffn_dim": 768,
    "spectrogram_bins": 513,
    "upsample_initial_channel": 512,
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
}


def _encoder(folder: Path) -> None:
    make_folder(folder, "BertForMaskedLM", base=SIZES | LARGE, scale=1)


def _writer(folder: Path) -> None:
    make_folder(folder, "T5ForConditionalGeneration", base=WRITER | LARGE_WRITER, scale=1)


CASES: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    "encoder": (_encoder, "fill-mask", [f"[MASK] {TEXT}"] * 16, {}),
    "writer": (_writer, "summarization", [TEXT] * 64, {"max_new_tokens": 64}),
    "beams": (_writer, "summarization", [TEXT] * 16, {"max_new_tokens": 64, "num_beams": 4}),
    "captions": (None, "image-to-text", 64, {"max_new_tokens": 20}),
    "voice": (None, "text-to-speech", [TEXT[:400]] * 2, {"speed": 0.5}),
}
DEEP = {"beams", "voice"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.deep] if c in DEEP else []) for c in CASES]
)
def test_an_estimate_covers_what_a_process_holds(case: str, tmp_path: Path) -> None:
    make, kind, items, params = CASES[case]
    folder = tmp_path / "model"
    blobs: list[Any] = []
    if case == "captions":
        make_captioner(folder, "blip")
        given = blob(tmp_path, "a.png", png(64, 64))
        blobs, items = [[given.digest, given.size_bytes, given.path]], [{"blob": 0}] * items
    elif case == "voice":
        make_voice(folder, sizes=VOICE | LARGE_VOICE)
    else:
        make(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.encoder.measure"],
        input=json.dumps([str(folder), kind, items, params, blobs, str(tmp_path / "spill")]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    estimate = inspect(folder).footprint_bytes
    assert held["peak"] <= held["bound"], held
    assert held["peak"] <= estimate, (held, estimate)
    assert estimate <= 6 * held["peak"], "an estimate of whatever size would cover it"
