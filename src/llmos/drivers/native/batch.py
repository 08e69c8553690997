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

import torch

from llmos.drivers.native.attention import Group, GroupsPlan, Place, Plan, PrefillPlan, RowsPlan
from llmos.drivers.native.compiled import Compiled
from llmos.drivers.native.kv import KVSlots
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import LoadedModel
from llmos.drivers.native.transfer import to_device


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
        self, slot: int, start: int, tokens: list[int], num_wanted: int = 1
    ) -> torch.Tensor:
        """Read a chunk of a prompt into a slot. Logits of its last `num_wanted` tokens, NV."""
        plan = PrefillPlan(self.kv, self._loaded.windows, slot, start, len(tokens))
        ids_T, positions_T = self._there(tokens, range(start, start + len(tokens)))
        return self._forward(ids_T[None], positions_T[None], plan, num_wanted)[0]

    @torch.inference_mode()
    def decode(
        self, slots: list[int], tokens: list[int], positions: list[int], mode: DecodeMode
    ) -> torch.Tensor:
        """One token each for requests in ascending slots. Logits, BV in their order."""
        for slot, position in zip(slots, positions, strict=True):
            self.kv.touch(slot, position + 1)
        if mode is DecodeMode.SINGLE:
            rows = zip(slots, tokens, positions, strict=True)
            return torch.cat([self._single(*row) for row in rows])
        if mode is DecodeMode.PACKED:
            return self._packed(slots, tokens, positions)
        return self._fixed(slots, tokens, positions)

    def _forward(
        self, ids_BT: torch.Tensor, positions_BT: torch.Tensor, plan: Plan, num_wanted: int
    ) -> torch.Tensor:
        """Logits of each row's last `num_wanted` tokens, BNV."""
        out = self._loaded.model(
            input_ids=ids_BT,
            position_ids=positions_BT,
            use_cache=False,
            logits_to_keep=num_wanted,
            llmos_plan=plan,
        )
        logits_BNV: torch.Tensor = out.logits[:, -num_wanted:]
        return logits_BNV

    def _packed(self, slots: list[int], tokens: list[int], positions: list[int]) -> torch.Tensor:
        """Filled up to a width that is compiled, where there is one."""
        num_rows = len(slots)
        forward = None if self.compiled is None else self.compiled.find(num_rows)
        filling = [0] * (forward.width - num_rows if forward else 0)
        slots_B, ids_B, positions_B = self._there(
            slots + [-1] * len(filling), tokens + filling, positions + filling
        )
        groups = self._groups(slots, positions, positions_B)
        plan = GroupsPlan(self.kv, self._loaded.windows, slots_B, positions_B, groups)
        inputs = ids_B[:, None], positions_B[:, None]
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

    def _fixed(self, slots: list[int], tokens: list[int], positions: list[int]) -> torch.Tensor:
        """The row of a request is its slot, the rows of the others are padding."""
        all_tokens, all_positions = [0] * self.width, [0] * self.width
        all_slots = [-1] * self.width
        for slot, token, position in zip(slots, tokens, positions, strict=True):
            all_tokens[slot], all_positions[slot], all_slots[slot] = token, position, slot
        places = [Place(s, s, p + 1) for s, p in zip(slots, positions, strict=True)]
        logits = self._by_row(all_slots, all_tokens, all_positions, places)
        (slots_N,) = self._there(slots)
        return logits[slots_N]

    def _single(self, slot: int, token: int, position: int) -> torch.Tensor:
        return self._by_row([slot], [token], [position], [Place(0, slot, position + 1)])

    def _by_row(
        self, slots: list[int], tokens: list[int], positions: list[int], places: list[Place]
    ) -> torch.Tensor:
        slots_B, ids_B, positions_B = self._there(slots, tokens, positions)
        plan = RowsPlan(self.kv, self._loaded.windows, slots_B, positions_B, places)
        return self._forward(ids_B[:, None], positions_B[:, None], plan, 1)[:, 0]

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
            logits = self._fixed(slots, [token] * len(slots), [step] * len(slots))
            alike = alike and bool((logits == logits[:1]).all())
        for slot in slots:
            self.kv.touch(slot, num_steps)
            self.kv.clear(slot, num_steps)
        return alike
