"""A simulated worker: iteration-level batching with a cost per step, no tokens in it."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.suspended import Tier

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StepCost:
    """Time of one engine step = `fixed_ns` + `per_row_ns` · rows that decode + `per_prompt_ns` ·
    prompt tokens read, of which at most `chunk_tokens` a step.
    """

    fixed_ns: int = 15_000_000
    per_row_ns: int = 1_000_000
    per_prompt_ns: int = 100_000
    chunk_tokens: int = 512


@dataclass(slots=True)
class Row:
    """A request on the worker: prompt tokens still to read, answer tokens still to make."""

    request_id: str
    prompt_left: int
    output_left: int
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """To end a request, or to put its state away (`suspends`, with a snapshot unless `tier` is
    None)."""

    request_id: str
    reason: str
    suspends: bool = False
    tier: Tier | None = None


class SimWorker:
    """Rows that hold KV. One step at a time; pauses and orders act between steps.

    `shelf`: who was suspended here, and has not come back; an abort of such a one is answered.
    """

    def __init__(self, cost: StepCost, slowness: float = 1.0) -> None:
        self._cost = cost
        self._slowness = slowness
        self.rows: dict[str, Row] = {}
        self.shelf: set[str] = set()
        self.orders: list[Order] = []
        self._plan: list[tuple[Row, int]] = []
        self.is_stepping = False

    def submit(self, request_id: str, prompt_tokens: int, output_tokens: int) -> None:
        """Also to go on from a snapshot: then there is less of both."""
        assert request_id not in self.rows, "submitted twice"
        self.shelf.discard(request_id)
        self.rows[request_id] = Row(request_id, prompt_tokens, output_tokens)

    def pause(self, request_id: str) -> None:
        if row := self.rows.get(request_id):
            row.paused = True

    def unpause(self, request_id: str) -> None:
        if row := self.rows.get(request_id):
            row.paused = False

    def order(self, order: Order) -> None:
        self.orders.append(order)

    def take_orders(self) -> list[Order]:
        """Between steps."""
        taken, self.orders = self.orders, []
        return taken

    def forget(self, request_id: str) -> bool:
        """It is aborted. False: it is not known here."""
        is_known = request_id in self.rows or request_id in self.shelf
        self.rows.pop(request_id, None)
        self.shelf.discard(request_id)
        return is_known

    def put_away(self, request_id: str) -> Row:
        """Off its row, on the shelf."""
        self.shelf.add(request_id)
        return self.rows.pop(request_id)

    def begin(self) -> int:
        """Plan a step; how many ns it takes, 0 when nothing can run."""
        budget, num_decoding, num_read = self._cost.chunk_tokens, 0, 0
        plan: list[tuple[Row, int]] = []
        for row in self.rows.values():
            if row.paused:
                continue
            if row.prompt_left == 0:
                num_decoding += 1
                plan.append((row, 0))
            elif budget > 0:
                chunk = min(budget, row.prompt_left)
                budget -= chunk
                num_read += chunk
                plan.append((row, chunk))
        self._plan = plan
        self.is_stepping = bool(plan)
        if not plan:
            return 0
        cost = self._cost
        spent = cost.fixed_ns + cost.per_row_ns * num_decoding + cost.per_prompt_ns * num_read
        return max(1, round(spent * self._slowness))

    def finish(self) -> tuple[list[tuple[str, int]], list[str]]:
        """End the planned step: tokens made by request, and who has made the last one."""
        made: list[tuple[str, int]] = []
        ended: list[str] = []
        self.is_stepping = False
        for row, chunk in self._plan:
            if chunk:
                row.prompt_left -= chunk
                if row.prompt_left:
                    continue
            row.output_left -= 1
            made.append((row.request_id, 1))
            if not row.output_left:
                ended.append(row.request_id)
                self.rows.pop(row.request_id, None)
        self._plan = []
        return made, ended
