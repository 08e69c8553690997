"""Speech of a row of letters, as VITS makes it: durations and sound are drawn, by a seed.

One row at a time: what is drawn for a row must not follow from who is in its batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from llmos.drivers.encoder.work import Work


def speak(model: Any, rate: float, work: Work, device: torch.device) -> Any:
    """Samples from -1 to 1, float32. `rate`: the model's own speaking rate."""
    about, params = work.open.item.about, work.request.params
    ids = np.frombuffer(work.row.tokens, dtype=np.int32).astype(np.int64)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(about["seed"])
        out = model(
            input_ids=torch.from_numpy(ids)[None].to(device),
            speaker_id=about["speaker"],
            speaking_rate=rate * params["speed"],
        )
    return out.waveform[0].float().cpu().numpy()
