"""Attention over `KVSlots`, behind Transformers' `AttentionInterface`.

A forward carries a plan (`llmos_plan=`) that every attention layer hands its queries, keys and
values to: the plan stores the new keys and values and attends. No mask function is registered for
this implementation, so Transformers builds no masks; causality, lengths and windows are ours.

Where a row's result must be a function of that row alone, prefill is one request per forward, and
decode attends row by row (`RowsPlan`).

Legend: B rows, H query heads, K key/value heads, G = H / K, T new tokens, L attended tokens, D
head size.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

from llmos.drivers.native.kv import KVSlots, LayerShape

IMPLEMENTATION = "llmos"
_WITHOUT_MASKS = {"cuda"}
"""Devices with kernels of attention that take no mask, and are the faster ones."""

_HARMLESS = {"position_ids", "use_cache", "output_attentions", "is_causal", "cache_position"}
_HARMLESS |= {"output_router_logits", "output_hidden_states", "position_embeddings"}


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What a layer asks for besides its tensors."""

    layer: int
    scale: float | None
    softcap: float | None
    window: int | None
    extras: list[str]


class Plan(Protocol):
    """How one forward reads and writes the slots."""

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        """The attention's output, BTHD."""
        ...


def _forward(  # noqa: PLR0917 (the signature is theirs)
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    llmos_plan: Plan,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' signature of an attention function; the output is BTHD."""
    extras = [k for k, v in kwargs.items() if v is not None and k not in _HARMLESS]
    if attention_mask is not None:
        extras.append("attention_mask")
    layer: int = module.layer_idx  # type: ignore[assignment]
    call = Call(layer, scaling, softcap, sliding_window, extras)
    return llmos_plan.attend(call, query, key, value), None


def register() -> None:
    """Make the implementation known to Transformers. Idempotent."""
    AttentionInterface.register(IMPLEMENTATION, _forward)


class _Running(threading.local):
    """The plan of the forward that a thread runs, where that forward is compiled."""

    plan: Plan


_running = _Running()
_library: Any = torch.library.Library("llmos", "DEF")  # type: ignore[no-untyped-call]
# the shapes inside follow the step's lengths: no CUDA graph may hold it
_library.define(
    "attend(Tensor q, Tensor k, Tensor v, int layer, float? scale, float? softcap) -> Tensor",
    tags=[torch.Tag.cudagraph_unsafe],
)


def _attend_running(  # noqa: PLR0917 (the operation's signature)
    q_BHTD: torch.Tensor,
    k_BKTD: torch.Tensor,
    v_BKTD: torch.Tensor,
    layer: int,
    scale: float | None,
    softcap: float | None,
) -> torch.Tensor:
    call = Call(layer, scale, softcap, None, [])
    return _running.plan.attend(call, q_BHTD, k_BKTD, v_BKTD).contiguous()


def _attended_shape(  # noqa: PLR0917 (the operation's signature)
    q_BHTD: torch.Tensor,
    k_BKTD: torch.Tensor,
    v_BKTD: torch.Tensor,
    layer: int,
    scale: float | None,
    softcap: float | None,
) -> torch.Tensor:
    num_rows, num_heads, num_new, _ = q_BHTD.shape
    return q_BHTD.new_empty(num_rows, num_new, num_heads, v_BKTD.shape[3])


_library.impl("attend", _attend_running, "CompositeExplicitAutograd")
torch.library.register_fake("llmos::attend", _attended_shape, lib=_library)


class OpaquePlan:
    """One operation in a graph, behind which the plan of the step runs: see `running`."""

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        out: torch.Tensor = torch.ops.llmos.attend(
            q_BHTD, k_BKTD, v_BKTD, call.layer, call.scale, call.softcap
        )
        return out


@contextlib.contextmanager
def running(plan: Plan) -> Iterator[None]:
    """Whose `OpaquePlan`s do what this plan says, in this thread."""
    _running.plan = plan
    try:
        yield
    finally:
        del _running.plan


class NoPlan:
    """Attends to nothing and stores nothing: for a forward that is only run to be compiled."""

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        return _attended_shape(q_BHTD, k_BKTD, v_BKTD, 0, None, None).zero_()


def attend(
    q_BHTD: torch.Tensor,
    k_BKLD: torch.Tensor,
    v_BKLD: torch.Tensor,
    mask_BTL: torch.Tensor | None,
    call: Call,
) -> torch.Tensor:
    """Scaled dot product attention, BTHD. No mask: the new tokens are the last of the keys, and see
    those before them."""
    num_rows, num_heads, num_new, size = q_BHTD.shape
    num_groups = num_heads // k_BKLD.shape[1]
    mask = None if mask_BTL is None else mask_BTL[:, None]
    if num_groups > 1 and num_new == 1:
        # one token: the group's heads are as many queries of one key/value head, nothing is copied
        q_BHTD = q_BHTD.reshape(num_rows, -1, num_groups, size)
    elif num_groups > 1:
        k_BKLD = k_BKLD.repeat_interleave(num_groups, dim=1)
        v_BKLD = v_BKLD.repeat_interleave(num_groups, dim=1)
    causal, num_keys = mask is None and num_new > 1, k_BKLD.shape[2]
    if call.softcap is not None:
        if causal:
            mask = causal_mask(num_keys - num_new, num_new, slice(0, num_keys), None, q_BHTD)
        out = _softcapped(q_BHTD, k_BKLD, v_BKLD, mask, call)
    elif causal and num_new < num_keys:
        # a kind of mask that is no tensor: with one FlashAttention could not be chosen
        out = F.scaled_dot_product_attention(
            q_BHTD, k_BKLD, v_BKLD, causal_lower_right(num_new, num_keys), scale=call.scale
        )
    else:
        out = F.scaled_dot_product_attention(
            q_BHTD, k_BKLD, v_BKLD, attn_mask=mask, is_causal=causal, scale=call.scale
        )
    return out.reshape(num_rows, num_heads, num_new, -1).transpose(1, 2)


def _softcapped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, call: Call
) -> torch.Tensor:
    """Scores bounded by tanh (Gemma 2, arXiv:2408.00118, section 2)."""
    cap = call.softcap or 1.0
    scale = q.shape[-1] ** -0.5 if call.scale is None else call.scale
    scores = torch.tanh(torch.matmul(q, k.transpose(2, 3)) * (scale / cap)) * cap
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v)


def causal_mask(
    start: int, num_new: int, span: slice, window: int | None, like: torch.Tensor
) -> torch.Tensor:
    """Additive mask TL for new tokens from `start` on, over the keys of `span`."""
    queries = torch.arange(start, start + num_new, device=like.device)[:, None]
    keys = torch.arange(span.start, span.stop, device=like.device)[None]
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    return _additive(hidden, like)


def _additive(hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))


class ProbePlan:
    """Records how a model calls attention; attends to nothing but the given tokens."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.shapes: list[LayerShape] = []

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        self.calls.append(call)
        self.shapes.append(LayerShape(k_BKTD.shape[1], k_BKTD.shape[3], v_BKTD.shape[3]))
        return attend(q_BHTD, k_BKTD, v_BKTD, None, call)


class PrefillPlan:
    """A chunk of one request's prompt: `num_new` tokens from position `start` on."""

    def __init__(
        self, kv: KVSlots, windows: list[int | None], slot: int, start: int, num_new: int
    ) -> None:
        self._kv = kv
        self._windows = windows
        self._slot = slot
        self._start = start
        self._end = start + num_new
        self._masks: dict[int | None, torch.Tensor | None] = {}

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        window = self._windows[call.layer]
        self._kv.write_span(call.layer, self._slot, self._start, k_BKTD[0], v_BKTD[0])
        first = 0 if window is None else max(0, self._start - window + 1)
        span = slice(first, self._end)
        if window not in self._masks:
            self._masks[window] = self._mask(span, window, q_BHTD)
        k, v = self._kv.read(call.layer, slice(self._slot, self._slot + 1), span)
        return attend(q_BHTD, k, v, self._masks[window], call)

    def _mask(self, span: slice, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        cut = window is not None and self._end > window
        if not cut and (self._start == 0 or like.device.type in _WITHOUT_MASKS):
            return None
        return causal_mask(self._start, self._end - self._start, span, window, like)[None]


class _Decoding:
    """One new token per row of the batch: where they are stored. A row in slot -1 is padding."""

    def __init__(
        self,
        kv: KVSlots,
        windows: list[int | None],
        slots_B: torch.Tensor,
        positions_B: torch.Tensor,
    ) -> None:
        self._kv = kv
        self._windows = windows
        self._slots_B = slots_B
        self._positions_B = positions_B
        self._rows: dict[int, torch.Tensor] = {}

    def _store(self, call: Call, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor) -> None:
        num_heads = k_BKTD.shape[1]
        rows = self._rows.get(num_heads)
        if rows is None:
            rows = self._kv.rows(num_heads, self._slots_B, self._positions_B)
            self._rows[num_heads] = rows
        self._kv.write_rows(call.layer, rows, k_BKTD[:, :, 0], v_BKTD[:, :, 0])


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A row of the batch that attends: its slot, and how many keys it has with its new one."""

    row: int
    slot: int
    num_keys: int


class RowsPlan(_Decoding):
    """Each row attends in a call of its own, over exactly its keys; other rows get zeros.

    A call's shape, and with it every choice that a kernel makes (blocks, threads, scratch memory),
    follows from the row alone. One call over all rows does not: with two threads the second one's
    scratch is aligned otherwise, and gives other bits.
    """

    def __init__(
        self,
        kv: KVSlots,
        windows: list[int | None],
        slots_B: torch.Tensor,
        positions_B: torch.Tensor,
        places: list[Place],
    ) -> None:
        super().__init__(kv, windows, slots_B, positions_B)
        self._places = places

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        self._store(call, k_BKTD, v_BKTD)
        window = self._windows[call.layer]
        num_rows, num_heads = q_BHTD.shape[:2]
        out_BTHD = q_BHTD.new_zeros(num_rows, 1, num_heads, v_BKTD.shape[3])
        for place in self._places:
            first = 0 if window is None else max(0, place.num_keys - window)
            span = slice(first, place.num_keys)
            k, v = self._kv.read(call.layer, slice(place.slot, place.slot + 1), span)
            out_BTHD[place.row] = attend(q_BHTD[place.row : place.row + 1], k, v, None, call)[0]
        return out_BTHD


@dataclasses.dataclass(slots=True)
class Group:
    """Adjacent slots that attend in one call, over `length` keys each, the excess masked.

    `num_keys` None: all of them have just so many.
    """

    slots: slice
    rows: slice
    length: int
    num_keys: torch.Tensor | None
    masks: dict[int | None, torch.Tensor] = dataclasses.field(default_factory=dict)

    def span(self, window: int | None) -> slice:
        """The keys that a layer reads."""
        first = 0
        if self.num_keys is None and window is not None:
            first = max(0, self.length - window)
        return slice(first, self.length)

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Additive mask BTL with T = 1, made once per step and window. None: all keys are seen."""
        if self.num_keys is None:
            return None
        found = self.masks.get(window)
        if found is None:
            positions = torch.arange(self.length, device=like.device)[None]
            hidden = positions >= self.num_keys[:, None]
            if window is not None:
                hidden |= positions < self.num_keys[:, None] - window
            found = self.masks[window] = _additive(hidden[:, None], like)
        return found


class GroupsPlan(_Decoding):
    """Rows of like length attend together: fewest calls, bits that follow the neighbours."""

    def __init__(
        self,
        kv: KVSlots,
        windows: list[int | None],
        slots_B: torch.Tensor,
        positions_B: torch.Tensor,
        groups: list[Group],
    ) -> None:
        super().__init__(kv, windows, slots_B, positions_B)
        self._groups = groups

    def attend(
        self, call: Call, q_BHTD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor
    ) -> torch.Tensor:
        self._store(call, k_BKTD, v_BKTD)
        parts = []
        for group in self._groups:
            window = self._windows[call.layer]
            k, v = self._kv.read(call.layer, group.slots, group.span(window))
            mask = group.mask(window, q_BHTD)
            parts.append(attend(q_BHTD[group.rows], k, v, mask, call))
        num_rows = sum(len(part) for part in parts)
        if num_rows < len(q_BHTD):  # rows that fill up the width
            parts.append(parts[0].new_zeros(len(q_BHTD) - num_rows, *parts[0].shape[1:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
