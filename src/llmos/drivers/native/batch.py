"""Forwards over the slots: a chunk of one prompt, or one token of every running request.

Two ways to decode. *Packed*: the batch is as wide as there are requests; cheapest, and a request's
bits may change with its neighbours. *Fixed*: every step has the same width, the request in slot i
is row i and the other rows are padding, attention goes row by row, so that bits depend on the row's
own tokens only. Where a machine's kernels break even that (`rows_are_alike` says), each request
decodes in a forward of its own: *single*.

Legend: B rows, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from llmos.drivers.native.attention import Group, GroupsPlan, Place, Plan, PrefillPlan, RowsPlan
from llmos.drivers.native.compiled import Compiled
from llmos.drivers.native.kv import KVSlots
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import LoadedModel
from llmos.drivers.native.towers import DEEP
from llmos.drivers.native.transfer import to_device


class Seen(NamedTuple):
    """Vectors of tokens, 1TH, and their places, 1T, or 31T where they are of three dimensions.
    `deep`: what early layers add to some of them, where a model has that."""

    vectors: torch.Tensor
    places: torch.Tensor
    deep: Any


class DecodeMode(enum.Enum):
    """How rows share a forward."""

    PACKED = "packed"
    FIXED = "fixed"
    SINGLE = "single"


class Batch:
    """Runs a loaded model over its KV slots. Knows slots and tokens, not requests.

    `compiled`: what packed steps are taken from, where it has them.
    """

    def __init__(self, loaded: LoadedModel, num_slots: int) -> None:
        self._loaded = loaded
        self.compiled: Compiled | None = None
        self._device = loaded.device
        grid = LIMITS.width_grid
        self.width = num_slots if num_slots == 1 else -(-num_slots // grid) * grid
        self.kv = KVSlots(
            loaded.shapes,
            num_slots=num_slots,
            length=-(-loaded.context_length // 16) * 16,
            dtype=loaded.dtype,
            device=loaded.device,
        )

    @torch.inference_mode()
    def prefill(
        self,
        slot: int,
        start: int,
        tokens: list[int],
        num_wanted: int = 1,
        seen: Seen | None = None,
    ) -> torch.Tensor:
        """Read a chunk of a prompt into a slot. Logits of its last `num_wanted` tokens, NV. `seen`:
        what stands in the tokens' place."""
        plan = PrefillPlan(self.kv, self._loaded.windows, slot, start, len(tokens))
        if seen is not None:
            return self._forward(seen.vectors, seen.places, plan, num_wanted, seen.deep)[0]
        ids_T, positions_T = self._there(tokens, range(start, start + len(tokens)))
        return self._forward(ids_T[None], positions_T[None], plan, num_wanted)[0]

    @torch.inference_mode()
    def decode(
        self,
        slots: list[int],
        tokens: list[int],
        positions: list[int],
        mode: DecodeMode,
        turns: list[int] | None = None,
    ) -> torch.Tensor:
        """One token each for requests in ascending slots. Logits, BV in their order. `turns`: the
        places that RoPE turns them by, where an image has taken less room than it has tokens."""
        turns = positions if turns is None else turns
        for slot, position in zip(slots, positions, strict=True):
            self.kv.touch(slot, position + 1)
        if mode is DecodeMode.SINGLE:
            rows = zip(slots, tokens, positions, turns, strict=True)
            return torch.cat([self._single(*row) for row in rows])
        if mode is DecodeMode.PACKED:
            return self._packed(slots, tokens, positions, turns)
        return self._fixed(slots, tokens, positions, turns)

    def _forward(
        self,
        input_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        plan: Plan,
        num_wanted: int,
        deep: Any = None,
    ) -> torch.Tensor:
        """Logits of each row's last `num_wanted` tokens, BNV. The input is ids, or vectors."""
        name = "inputs_embeds" if input_BT.is_floating_point() else "input_ids"
        more = {} if deep is None else {DEEP: deep}
        out = self._loaded.model(
            **{name: input_BT},
            **more,
            position_ids=positions_BT,
            use_cache=False,
            logits_to_keep=num_wanted,
            llmos_plan=plan,
        )
        logits_BNV: torch.Tensor = out.logits[:, -num_wanted:]
        return logits_BNV

    def _packed(
        self, slots: list[int], tokens: list[int], positions: list[int], turns: list[int]
    ) -> torch.Tensor:
        """Filled up to a width that is compiled, where there is one."""
        num_rows = len(slots)
        forward = None if self.compiled is None else self.compiled.find(num_rows)
        filling = [0] * (forward.width - num_rows if forward else 0)
        slots_B, ids_B, positions_B, turns_B = self._there(
            slots + [-1] * len(filling), tokens + filling, positions + filling, turns + filling
        )
        groups = self._groups(slots, positions, positions_B)
        plan = GroupsPlan(self.kv, self._loaded.windows, slots_B, positions_B, groups)
        inputs = ids_B[:, None], turns_B[:, None]
        if self.compiled is not None and forward is not None:
            logits_BV = self.compiled.run(forward, *inputs, plan)
            if logits_BV is not None:
                return logits_BV[:num_rows]
        return self._forward(*inputs, plan, 1)[:num_rows, 0]

    def _groups(
        self, slots: list[int], positions: list[int], positions_B: torch.Tensor
    ) -> list[Group]:
        groups, begin = [], 0
        for row in range(1, len(slots) + 1):
            if row < len(slots) and self._joins(slots, positions, row):
                continue
            alike = min(positions[begin:row]) == max(positions[begin:row])
            groups.append(
                Group(
                    slots=slice(slots[begin], slots[row - 1] + 1),
                    rows=slice(begin, row),
                    length=positions[begin] + 1 if alike else self._length(positions[begin]),
                    num_keys=None if alike else positions_B[begin:row] + 1,
                )
            )
            begin = row
        return groups

    def _joins(self, slots: list[int], positions: list[int], row: int) -> bool:
        """Whether a row attends in one call with the row before it: adjacent, of like length."""
        return slots[row] == slots[row - 1] + 1 and self._length(positions[row]) == self._length(
            positions[row - 1]
        )

    def _length(self, position: int) -> int:
        """Keys that a group reads for a token at a position: of the grid, at most the slot."""
        length = LIMITS.length_grid
        while length <= position:
            length *= 2
        return min(length, self.kv.length)

    def _fixed(
        self, slots: list[int], tokens: list[int], positions: list[int], turns: list[int]
    ) -> torch.Tensor:
        """The row of a request is its slot, the rows of the others are padding."""
        rows = [(-1, 0, 0, 0)] * self.width
        for row in zip(slots, tokens, positions, turns, strict=True):
            rows[row[0]] = row
        places = [Place(s, s, p + 1) for s, p in zip(slots, positions, strict=True)]
        logits = self._by_row(rows, places)
        (slots_N,) = self._there(slots)
        return logits[slots_N]

    def _single(self, slot: int, token: int, position: int, turn: int) -> torch.Tensor:
        row = slot, token, position, turn
        return self._by_row([row], [Place(0, slot, position + 1)])

    def _by_row(self, rows: list[tuple[int, int, int, int]], places: list[Place]) -> torch.Tensor:
        """Rows of slot, token, position and turn."""
        slots_B, ids_B, positions_B, turns_B = self._there(*map(list, zip(*rows, strict=True)))
        plan = RowsPlan(self.kv, self._loaded.windows, slots_B, positions_B, places)
        return self._forward(ids_B[:, None], turns_B[:, None], plan, 1)[:, 0]

    def _there(self, *lists: Sequence[int]) -> list[torch.Tensor]:
        return to_device(self._device, *lists)

    @torch.inference_mode()
    def rows_are_alike(self, num_steps: int = 8) -> bool:
        """Whether equal rows of a fixed step get equal bits, wherever they sit.

        Ends with all slots zeroed; only for an idle batch.
        """
        slots = list(range(self.kv.num_slots))
        vocab = self._loaded.vocab_size
        alike = True
        num_steps = min(num_steps, self._loaded.context_length)
        for step in range(num_steps):
            token = (step * 7919 + 11) % vocab
            steps = [step] * len(slots)
            logits = self._fixed(slots, [token] * len(slots), steps, steps)
            alike = alike and bool((logits == logits[:1]).all())
        for slot in slots:
            self.kv.touch(slot, num_steps)
            self.kv.clear(slot, num_steps)
        return alike
