"""Forwards over the slots: a chunk of one prompt, or one token of every running request.

Two ways to decode. *Packed*: the batch is as wide as there are requests; cheapest, and a request's
bits may change with its neighbours. *Fixed*: every step has the same shapes, request in slot i is
row i and the other rows are padding, so that bits depend on the row's own tokens only. Where a
machine's kernels break even that (`rows_are_alike` says), each request decodes in a forward of its
own: *single*.

Legend: B rows, V vocabulary.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import enum

import torch

from llmos.drivers.native.attention import DecodePlan, Group, Plan, PrefillPlan
from llmos.drivers.native.kv import KVSlots
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import LoadedModel


class DecodeMode(enum.Enum):
    """How rows share a forward."""

    PACKED = "packed"
    FIXED = "fixed"
    SINGLE = "single"


class Batch:
    """Runs a loaded model over its KV slots. Knows slots and tokens, not requests."""

    def __init__(self, loaded: LoadedModel, num_slots: int) -> None:
        self._loaded = loaded
        self._device = loaded.device
        grid = LIMITS.width_grid
        self._width = num_slots if num_slots == 1 else -(-num_slots // grid) * grid
        self.kv = KVSlots(
            loaded.shapes,
            num_slots=num_slots,
            length=-(-loaded.context_length // 16) * 16,
            dtype=loaded.dtype,
            device=loaded.device,
        )

    @torch.inference_mode()
    def prefill(self, slot: int, start: int, tokens: list[int]) -> torch.Tensor:
        """Read a chunk of a prompt into a slot. Logits of its last token, 1V."""
        plan = PrefillPlan(self.kv, self._loaded.windows, slot, start, len(tokens))
        positions = list(range(start, start + len(tokens)))
        return self._forward([tokens], [positions], plan)

    @torch.inference_mode()
    def decode(
        self, slots: list[int], tokens: list[int], positions: list[int], mode: DecodeMode
    ) -> torch.Tensor:
        """One token each for requests in ascending slots. Logits, BV in their order."""
        if mode is DecodeMode.SINGLE:
            return torch.cat(
                [
                    self._packed([slot], [token], [position])
                    for slot, token, position in zip(slots, tokens, positions, strict=True)
                ]
            )
        if mode is DecodeMode.PACKED:
            return self._packed(slots, tokens, positions)
        return self._fixed(slots, tokens, positions)

    def _forward(
        self, tokens: list[list[int]], positions: list[list[int]], plan: Plan
    ) -> torch.Tensor:
        out = self._loaded.model(
            input_ids=torch.tensor(tokens, device=self._device),
            position_ids=torch.tensor(positions, device=self._device),
            use_cache=False,
            logits_to_keep=1,
            llmos_plan=plan,
        )
        logits_BV: torch.Tensor = out.logits[:, -1]
        return logits_BV

    def _packed(self, slots: list[int], tokens: list[int], positions: list[int]) -> torch.Tensor:
        groups, begin = [], 0
        for row in range(1, len(slots) + 1):
            if row < len(slots) and self._joins(slots, positions, row):
                continue
            last = max(positions[begin:row])
            groups.append(
                Group(
                    slots=slice(slots[begin], slots[row - 1] + 1),
                    rows=slice(begin, row),
                    length=self._length(last),
                    num_keys=self._tensor([position + 1 for position in positions[begin:row]]),
                )
            )
            begin = row
        plan = self._plan(slots, positions, groups)
        return self._forward([[t] for t in tokens], [[p] for p in positions], plan)

    def _joins(self, slots: list[int], positions: list[int], row: int) -> bool:
        """Whether a row attends in one call with the row before it: adjacent, of one length."""
        return slots[row] == slots[row - 1] + 1 and self._length(positions[row]) == self._length(
            positions[row - 1]
        )

    def _fixed(self, slots: list[int], tokens: list[int], positions: list[int]) -> torch.Tensor:
        num_slots = self.kv.num_slots
        all_tokens, all_positions = [0] * self._width, [0] * self._width
        all_slots = [-1] * self._width
        num_keys = [1] * num_slots
        by_length: dict[int, list[int]] = {}
        for slot, token, position in zip(slots, tokens, positions, strict=True):
            all_tokens[slot], all_positions[slot] = token, position
            all_slots[slot] = slot
            num_keys[slot] = position + 1
            by_length.setdefault(self._length(position), []).append(slot)
        whole = slice(0, num_slots)
        counts = self._tensor(num_keys)
        groups = [
            Group(whole, whole, length, counts.clamp(max=length), self._tensor(kept))
            for length, kept in sorted(by_length.items())
        ]
        plan = self._plan(all_slots, all_positions, groups)
        logits = self._forward([[t] for t in all_tokens], [[p] for p in all_positions], plan)
        return logits[self._tensor(slots)]

    def _plan(self, slots: list[int], positions: list[int], groups: list[Group]) -> DecodePlan:
        places = self._tensor(slots), self._tensor(positions)
        return DecodePlan(self.kv, self._loaded.windows, *places, groups)

    def _length(self, position: int) -> int:
        """Keys that attention reads for a token at a position: of the grid, at most the slot."""
        length = LIMITS.length_grid
        while length <= position:
            length *= 2
        return min(length, self.kv.length)

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, device=self._device)

    @torch.inference_mode()
    def rows_are_alike(self, num_steps: int = 4) -> bool:
        """Whether equal rows of a fixed step get equal bits, wherever they sit.

        Ends with all slots zeroed; only for an idle batch.
        """
        slots = list(range(self.kv.num_slots))
        vocab = self._loaded.vocab_size
        alike = True
        for step in range(min(num_steps, self._loaded.context_length)):
            token = (step * 7919 + 11) % vocab
            logits = self._fixed(slots, [token] * len(slots), [step] * len(slots))
            alike = alike and bool((logits == logits[:1]).all())
        for slot in slots:
            self.kv.clear(slot)
        return alike
