"""Rows through the model, all of a batch at once: one function per head.

Shapes: B rows, L tokens, H hidden units, C classes.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from llmos.drivers.encoder.kinds import Head
from llmos.drivers.encoder.limits import LIMITS, EncoderLimits
from llmos.drivers.encoder.load import Loaded
from llmos.drivers.encoder.voice import speak
from llmos.drivers.encoder.work import Work
from llmos.drivers.floats import read_floats
from llmos.drivers.native.failures import mapped

_ALONE = msgspec.structs.replace(LIMITS, batch_rows=1)


class Computer:
    """Runs batches of one loaded model. Raises EngineFailed."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._model = loaded.model
        parameters = inspect.signature(loaded.model.forward).parameters
        types = int(getattr(loaded.config, "type_vocab_size", 0) or 0)
        self._has_types = "token_type_ids" in parameters and types > 1
        self._extra = {"use_cache": False} if "use_cache" in parameters else {}
        pad = getattr(loaded.config, "pad_token_id", None)
        self._pad = pad if isinstance(pad, int) and pad >= 0 else 0
        self._run = _RUNS.get(loaded.purpose.head)
        self._virtual = np.array(loaded.virtual, dtype=np.int32)
        self._num_virtual = len(loaded.virtual)

    @property
    def limits(self) -> EncoderLimits:
        """A voice says one row at a time, and whoever waits for it hears it at once; where tokens
        have scores of a vocabulary, these are bounded too."""
        if self._loaded.purpose.head is Head.VOICE:
            return _ALONE
        limits, num_added = LIMITS, self._num_virtual + self._loaded.num_prefix
        if num_added:  # they are no part of a row's length: at most a quarter of a batch
            rows = max(1, LIMITS.batch_tokens // (4 * num_added))
            limits = msgspec.structs.replace(LIMITS, batch_rows=min(LIMITS.batch_rows, rows))
        if self._loaded.purpose.head is not Head.MASK:
            return limits
        most = max(512, min(LIMITS.batch_tokens, LIMITS.head_bytes // (4 * self._vocab_size)))
        return msgspec.structs.replace(limits, batch_tokens=most)

    @property
    def _vocab_size(self) -> int:
        return int(self._loaded.config.vocab_size)

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """The result of every row, as `finish` reads it. Raises EngineFailed."""
        assert self._run is not None, "a decoder's rows are not done in one run"
        with mapped(), torch.inference_mode():
            return self._run(self, batch)

    def encode(self, batch: Sequence[Work]) -> tuple[Any, Any]:
        """Of rows for a decoder: the encoder's states, and which of them are read. Raises
        EngineFailed."""
        with mapped(), torch.inference_mode():
            is_captioner = self._loaded.purpose.head is Head.CAPTIONER
            encoder = self._model.vision_model if is_captioner else self._model.get_encoder()
            if self._loaded.purpose.head is not Head.DECODER:
                return encoder(self._spilled(batch)).last_hidden_state, None
            inputs, _ = self.inputs(batch)
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            return encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask

    def forward(self, batch: Sequence[Work]) -> tuple[Any, list[int]]:
        """Of rows of tokens: the model's outputs, and each row's length without virtual tokens,
        which have outputs as well, before the others."""
        inputs, lengths = self.inputs(batch)
        return self._model(**inputs, **self._extra), lengths

    def inputs(self, batch: Sequence[Work]) -> tuple[dict[str, Any], list[int]]:
        """Rows of tokens side by side, padded, and each row's length."""
        rows = [np.frombuffer(work.row.tokens, dtype=np.int32) for work in batch]
        lengths = [len(row) for row in rows]
        num_virtual, num_prefix = self._num_virtual, self._loaded.num_prefix
        if num_virtual:
            rows = [np.concatenate((self._virtual, row)) for row in rows]
        longest = num_virtual + max(lengths)
        ids_BL = np.full((len(rows), longest), self._pad, dtype=np.int64)
        for i, row in enumerate(rows):
            ids_BL[i, : len(row)] = row
        inputs: dict[str, Any] = {"input_ids": self._tensor(ids_BL)}
        ends_B = num_prefix + num_virtual + np.array(lengths)
        mask_BL = np.arange(num_prefix + longest)[None, :] < ends_B[:, None]
        inputs["attention_mask"] = self._tensor(mask_BL.astype(np.int64))
        if self._has_types:
            inputs["token_type_ids"] = self._tensor(self._types(batch, longest))
        return inputs, lengths

    def _types(self, batch: Sequence[Work], longest: int) -> Any:
        types_BL, begin = np.zeros((len(batch), longest), dtype=np.int64), self._num_virtual
        for i, work in enumerate(batch):
            types = work.row.types
            if types:
                types_BL[i, begin : begin + len(types)] = np.frombuffer(types, dtype=np.uint8)
        return types_BL

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(self._loaded.device)

    def sequence(self, batch: Sequence[Work]) -> list[Any]:
        """C scores of each row."""
        out, _ = self.forward(batch)
        return list(_host(out.logits))

    def token(self, batch: Sequence[Work]) -> list[Any]:
        """LC scores."""
        out, lengths = self.forward(batch)
        logits_BLC = _host(out.logits)[:, self._num_virtual :]
        return [logits_BLC[i, :n] for i, n in enumerate(lengths)]

    def span(self, batch: Sequence[Work]) -> list[Any]:
        """L scores of a first token, and of a last one."""
        out, lengths = self.forward(batch)
        begin = self._num_virtual
        starts_BL, ends_BL = _host(out.start_logits)[:, begin:], _host(out.end_logits)[:, begin:]
        return [(starts_BL[i, :n], ends_BL[i, :n]) for i, n in enumerate(lengths)]

    def mask(self, batch: Sequence[Work]) -> list[Any]:
        """Of each gap the likeliest tokens: their ids, and their probabilities."""
        out, _ = self.forward(batch)
        found = []
        for i, work in enumerate(batch):
            about, most = work.open.item.about, work.request.params["top_k"]
            gaps = [self._num_virtual + gap for gap in about["gaps"]]
            probs_GV = out.logits[i, gaps].float().softmax(dim=-1)
            targets = about["targets"]
            ids = None if targets is None else torch.tensor(targets, device=probs_GV.device)
            if ids is not None:
                probs_GV = probs_GV[:, ids]
            values, places = probs_GV.topk(min(most, probs_GV.shape[-1]), dim=-1)
            tokens = places if ids is None else ids[places]
            found.append((tokens.tolist(), values.tolist()))
        return found

    def image(self, batch: Sequence[Work]) -> list[Any]:
        """C scores of each image."""
        return list(_host(self._model(pixel_values=self._spilled(batch)).logits))

    def boxes(self, batch: Sequence[Work]) -> list[Any]:
        """Of each query, scores of its classes and where it looks: centre, width and height."""
        out = self._model(pixel_values=self._spilled(batch))
        return list(zip(_host(out.logits), _host(out.pred_boxes), strict=True))

    def ctc(self, batch: Sequence[Work]) -> list[Any]:
        """The likeliest unit of each frame."""
        logits = self._model(input_values=self._spilled(batch)).logits
        return [row.tolist() for row in logits.argmax(dim=-1).cpu()]

    def voice(self, batch: Sequence[Work]) -> list[Any]:
        """Samples of each row."""
        loaded = self._loaded
        rate = float(loaded.config.speaking_rate)
        return [speak(self._model, rate, work, loaded.device) for work in batch]

    def _spilled(self, batch: Sequence[Work]) -> torch.Tensor:
        """What the preparer put into files: rows of one shape."""
        rows = [
            read_floats(work.request.item.spill, work.row.shape, work.row.start) for work in batch
        ]
        return self._tensor(np.stack(rows)).to(self._loaded.dtype)

    def pool(self, batch: Sequence[Work]) -> list[Any]:
        """A vector of H, and of how many tokens it is."""
        out, lengths = self.forward(batch)
        hidden_BLH = out.last_hidden_state.float()[:, self._num_virtual :]
        found = []
        for i, n in enumerate(lengths):
            hidden_LH = hidden_BLH[i, :n]
            mode = batch[i].request.params["pooling"] or self._loaded.pooling.mode
            found.append((_pool(hidden_LH, mode).cpu().numpy(), n))
        return found


def _pool(hidden_LH: torch.Tensor, mode: str) -> torch.Tensor:
    if mode == "mean":
        return hidden_LH.mean(dim=0)
    if mode == "max":
        return hidden_LH.amax(dim=0)
    return hidden_LH[0 if mode == "cls" else -1]


def _host(tensor: torch.Tensor) -> Any:
    return tensor.float().cpu().numpy()


_RUNS: dict[Head, Callable[[Computer, Sequence[Work]], list[Any]]] = {
    Head.SEQUENCE: Computer.sequence,
    Head.TOKEN: Computer.token,
    Head.SPAN: Computer.span,
    Head.MASK: Computer.mask,
    Head.POOL: Computer.pool,
    Head.IMAGE: Computer.image,
    Head.BOXES: Computer.boxes,
    Head.CTC: Computer.ctc,
    Head.VOICE: Computer.voice,
}
