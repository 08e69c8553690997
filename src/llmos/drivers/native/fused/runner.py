"""Kernels of ours over pages of KV: prompts and answers of all requests in one forward.

A row's bits depend on its own tokens only (see `engine`), so prompts are cut wherever there is
time, beginnings are taken from whoever read them, and guessed tokens are kept where they are what
would have been drawn; none of it shows in an answer.
"""

# ruff: noqa: N803 (tensor names carry their shape)
from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.native import pages as memory_pages
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.fused import binding
from llmos.drivers.native.fused.draft import Draft
from llmos.drivers.native.fused.drawing import drawing
from llmos.drivers.native.fused.engine import Engine, Piece
from llmos.drivers.native.fused.guessing import Ask, Guesser, Speeds
from llmos.drivers.native.fused.lookup import Lookups
from llmos.drivers.native.fused.residence import HeldTogether, Residence
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.machine import processor_name
from llmos.drivers.native.memory import Accounts
from llmos.drivers.native.paging import Pages
from llmos.drivers.native.request import Request, in_order
from llmos.drivers.native.runner import Drawn, Grounds, ModelInfo
from llmos.errors import EngineFailed, LoadFailed


@dataclasses.dataclass(frozen=True, slots=True)
class PagesCopy:
    """Pages of a request, uint8 [pages, bytes], layer after layer."""

    num_tokens: int
    layers: list[torch.Tensor]

    @property
    def size_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from self.layers


@dataclasses.dataclass(slots=True)
class _Work:
    """What a request does in a step: reads `tokens`, predicts after the last `num_wanted`.

    `forced`: of them those after the first are what its grammar demands. `scored`: its logits are
    of a prompt's tokens that are there already, but for the last, if it `draws`.
    """

    request: Request
    tokens: list[int]
    num_wanted: int
    forced: bool = False
    scored: bool = False
    draws: bool = True


class FusedRunner:
    """`Runner` over `Engine`. `open_engine` makes one, at first and after every park.

    Tokens are guessed by the draft model where there is one, else by lookup; not at all without
    `guesses`.
    """

    def __init__(
        self,
        info: ModelInfo,
        residence: Residence,
        open_engine: Callable[[], Engine],
        layers: list[tuple[int, int, int]],
        features: list[str],
        *,
        num_slots: int,
        guesses: bool,
        draft: Draft | None = None,
    ) -> None:
        self.info = info
        self.layers = layers
        self.num_slots = num_slots
        # bits do not depend on how many there are: a snapshot may go on with another number
        self.num_threads = 1
        self.grounds = Grounds("fused", 0, 0, f"kernels {' '.join(features)}", processor_name(_CPU))
        self._residence = residence
        self._open_engine = open_engine
        self._engine: Engine | None = open_engine()
        self._pages = Pages(self._engine.num_pages, binding.PAGE_TOKENS)
        self._draft = draft
        self._guesser: Guesser | None = (draft or Lookups()) if guesses else None
        self._speeds = Speeds()
        self.num_guessed = self.num_accepted = 0
        self._num_touched = 0
        self._num_steps = 0
        self._token_s = 0.0
        self._prove()
        memory_pages.trim()
        held = residence if draft is None else HeldTogether([residence, draft.residence])
        scratch_bytes = self._engine.scratch_bytes + (draft.scratch_bytes if draft else 0)
        self._accounts = Accounts(held, self, _CPU, scratch_bytes)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise EngineFailed("the model is parked")
        return self._engine

    def _prove(self) -> None:
        """A token's logits are the same bits alone and beside others; also warms the kernels up,
        and sees how long a step takes.

        Raises LoadFailed. Needs an idle pool, and leaves it as it was.
        """
        lease = self._pages.open("", [0], binding.PAGE_TOKENS)
        assert lease is not None
        self._touch(lease.grow(binding.PAGE_TOKENS))
        table = array("i", lease.pages)
        tokens = [(7919 * i + 11) % self.info.vocab_size for i in range(min(8, self._most_tokens))]
        whole = self.engine.forward([Piece(table, 0, tokens, 1)]).clone()
        last = whole
        for position, token in enumerate(tokens):
            began = time.perf_counter()
            last = self.engine.forward([Piece(table, position, [token], 1)])
            single_s = time.perf_counter() - began
        if not torch.equal(last.nan_to_num(), whole.nan_to_num()):
            raise LoadFailed("the kernels give other bits to a token read alone")
        began = time.perf_counter()
        self.engine.forward([Piece(table, 0, tokens, len(tokens))])
        self._speeds.note(len(tokens), time.perf_counter() - began)
        self._speeds.note(1, single_s)
        self._pages.close(lease, poisoned=True)

    def _touch(self, added: list[int]) -> list[int]:
        """Free pages are handed out from the lowest number on."""
        if added:
            self._num_touched = max(self._num_touched, 1 + max(added))
        return added

    @property
    def _most_tokens(self) -> int:
        return min(self.info.context_length, self._pages.num_pages * binding.PAGE_TOKENS)

    # KV

    def seat(self, request: Request, slot: int) -> bool:
        known = request.known(max(request.num_cached + 1, len(request.to_read)))
        reserved = len(request.prompt) + request.max_new
        salt = request.salt
        lease = self._pages.open(salt, known[: max(1, len(known))], max(reserved, len(known)))
        if lease is None:
            return False
        request.lease = lease
        copy, request.parked = request.parked, None
        request.table = request.table[:0]
        request.table.extend(lease.pages)
        if copy is not None:
            assert isinstance(copy, PagesCopy)
            request.table.extend(self._touch(lease.grow(copy.num_tokens)))
            count = num_pages(copy.num_tokens)
            found = lease.num_cached // binding.PAGE_TOKENS
            if found < count:
                rest = [layer[found:] for layer in copy.layers]
                self.engine.write_pages(lease.pages[found:count], rest)
            request.num_cached = max(copy.num_tokens, lease.num_cached)
        else:
            request.num_cached = lease.num_cached
            request.num_found = min(lease.num_cached, len(request.prompt))
        return True

    def leave(self, request: Request, *, broken: bool = False) -> None:
        if self._guesser is not None:
            self._guesser.forget(request)
        if request.lease is not None:
            keeps_none = broken or request.scores_prompt
            tokens = [] if keeps_none else request.known(request.num_cached)
            if broken:  # which page it was is not known: whoever asks again must read all anew
                self._pages.distrust(request.lease)
            self._pages.close(request.lease, tokens, poisoned=broken)
            request.lease = None

    def set_aside(self, request: Request) -> None:
        request.parked = self._copy(request) if request.num_cached else None
        self.leave(request)

    def _copy(self, request: Request) -> PagesCopy:
        assert request.lease is not None
        count = num_pages(request.num_cached)
        with mapped():
            layers = self.engine.read_pages(request.lease.pages[:count], request.num_cached)
        return PagesCopy(request.num_cached, layers)

    def kv_bytes(self, num_tokens: int) -> int:
        return num_pages(num_tokens) * self.engine.page_bytes

    def kv_of(self, request: Request) -> Iterable[torch.Tensor]:
        return self._copy(request).tensors()

    def empty_copy(self, num_tokens: int) -> PagesCopy:
        return PagesCopy(num_tokens, self.engine.empty_pages(num_pages(num_tokens)))

    # work

    def advance(self, running: list[Request]) -> list[Drawn]:
        """Every running request draws; prompts are read for as long as those may be held up."""
        self._num_steps += 1
        decoding = [request for request in running if not request.prefilling]
        prefilling = [request for request in running if request.prefilling]
        works = [_Work(r, [r.generated[-1]], 1) for r in decoding]
        if not prefilling and self._guesser is not None:
            self._guess(works, self._guesser)
        budget = min(self.engine.max_rows, LIMITS.step_tokens) - sum(len(w.tokens) for w in works)
        for request in in_order(prefilling, self._num_steps):
            room = budget - self._held_back(request, decoding, len(prefilling))
            if room <= 0:
                break
            if request.scores_prompt:
                room = min(room, self._room_to_score(works, prefilling))
            else:
                self._look_again(request)
            tokens = request.to_read[request.num_cached : request.num_cached + room]
            ends = request.num_cached + len(tokens) == len(request.to_read)
            num_wanted = len(tokens) if request.scores_prompt else int(ends)
            scored = request.scores_prompt
            works.append(_Work(request, tokens, num_wanted, scored=scored, draws=ends))
            budget -= len(tokens)
        try:
            return self._run(works)
        except EngineFailed as error:
            return [(work.request, error) for work in works]

    def _room_to_score(self, works: list[_Work], prefilling: list[Request]) -> int:
        """Rows of logits that are left when everybody else has one: at least one."""
        asked = {work.request.request_id for work in works}
        others = sum(request.request_id not in asked for request in prefilling) - 1
        taken = sum(work.num_wanted for work in works)
        return max(1, self.engine.max_wanted - taken - others)

    def _look_again(self, request: Request) -> None:
        """What others have read since a request was seated, before it reads anything itself."""
        lease = request.lease
        if lease is None or request.num_cached != lease.num_cached:
            return
        self._pages.close(lease)
        is_seated = self.seat(request, -1)
        assert is_seated  # there is no less room than it had

    def _held_back(self, request: Request, decoding: list[Request], num_waiting: int) -> int:
        """How much of a step's tokens a prompt leaves unused for the sake of who is running.

        The more wait for each of those, the longer those are held up: all prompts of a burst are
        read sooner than one answer after another would let them.
        """
        if not decoding or not self._token_s:
            return 0
        highest = max(other.item.service_class for other in decoding)
        urgent = request.item.service_class > highest
        bound_s = LIMITS.urgent_prefill_s_per_step if urgent else LIMITS.prefill_s_per_step
        bound_s *= 1 + num_waiting / len(decoding)
        allowed = max(LIMITS.least_prefill, int(bound_s / self._token_s))
        return max(0, LIMITS.step_tokens - len(decoding) - allowed)

    def _guess(self, works: list[_Work], guesser: Guesser) -> None:
        """Rows that a step has room for at little cost are spent on tokens that may come."""
        room = LIMITS.draft_rows - len(works)
        asking: list[tuple[_Work, Ask]] = []
        for work in works:
            request = work.request
            count = min(LIMITS.draft_tokens, request.max_new - len(request.generated) - 1)
            if count <= 0 or not request.guesses or request.sampler.penalized:
                continue
            if self._force(work, max(0, min(room, count))):
                room -= len(work.tokens) - 1
            else:
                asking.append((work, Ask(request, count)))
        if room <= 0 or not asking:
            return
        guesses = guesser.guess([ask for _, ask in asking], room, self._speeds)
        for (work, _), guessed in zip(asking, guesses, strict=True):
            work.tokens = work.tokens + guessed
            work.num_wanted = len(work.tokens)

    @staticmethod
    def _force(work: _Work, count: int) -> bool:
        """Guess what the grammar demands next, if it demands something."""
        grammar = work.request.sampler.grammar
        forced = [] if grammar is None else grammar.forced(count)
        work.tokens = work.tokens + forced
        work.num_wanted = len(work.tokens)
        work.forced = bool(forced)
        return work.forced

    def _run(self, works: list[_Work]) -> list[Drawn]:
        if not works:
            return []
        pieces = []
        for work in works:
            request = work.request
            assert request.lease is not None
            added = request.lease.grow(request.num_cached + len(work.tokens))
            request.table.extend(self._touch(added))
            pieces.append(Piece(request.table, request.num_cached, work.tokens, work.num_wanted))
        began = time.perf_counter()
        with mapped():
            logits = self.engine.forward(pieces)
        read_s = time.perf_counter() - began
        with mapped(), torch.inference_mode():
            tokens = self._draw(logits, works)
        self._note_speed(read_s, time.perf_counter() - began, works)
        return self._accept(works, tokens)

    def _note_speed(self, took_s: float, whole_s: float, works: list[_Work]) -> None:
        """Of reading prompts, from steps that read a good many tokens; of steps of a few rows."""
        num_tokens = sum(len(work.tokens) for work in works)
        if num_tokens == sum(work.num_wanted for work in works) <= LIMITS.draft_rows:
            self._speeds.note(num_tokens, whole_s)
        if num_tokens >= LIMITS.least_prefill:
            now = took_s / num_tokens
            self._token_s = now if not self._token_s else 0.7 * self._token_s + 0.3 * now

    def _draw(self, logits_NV: torch.Tensor, works: list[_Work]) -> list[int | None]:
        drawings = []
        row = 0
        for work in works:
            sampler, index = work.request.sampler, len(work.request.generated)
            if work.scored:
                work.request.score(logits_NV[row : row + work.num_wanted])
                if sampler.shaped and work.draws:
                    sampler.shape(logits_NV[row + work.num_wanted - 1 : row + work.num_wanted])
            elif sampler.shaped and work.num_wanted:
                guessed = work.tokens[1:] if work.num_wanted > 1 else ()
                sampler.shape(logits_NV[row : row + work.num_wanted], guessed)
            drawings += [drawing(sampler, index + ahead) for ahead in range(work.num_wanted)]
            row += work.num_wanted
        return self.engine.draw(logits_NV, drawings) if drawings else []

    def _accept(self, works: list[_Work], tokens: list[int | None]) -> list[Drawn]:
        drawn: list[Drawn] = []
        row = 0
        for work in works:
            request = work.request
            mine = tokens[row : row + work.num_wanted]
            row += work.num_wanted
            guessed = work.tokens[1:] if work.num_wanted > 1 and not work.scored else []
            if work.scored and None not in mine:
                mine = mine[-1:] if work.draws else []
            taken: list[int] = []
            for number, token in enumerate(mine):
                if token is None:
                    break
                taken.append(token)
                if number < len(guessed) and token != guessed[number]:
                    break
            request.sampler.record(taken)
            if guessed and not work.forced and self._guesser is not None:
                num_right = max(0, len(taken) - 1)
                self._guesser.note(request, len(guessed), num_right)
                self.num_guessed += len(guessed)
                self.num_accepted += num_right
            was_reading = request.prefilling
            # a token is cached once it was read: of the drawn ones all but the last
            request.num_cached += len(work.tokens) - len(guessed) + max(0, len(taken) - 1)
            if mine and not taken:
                drawn.append((request, EngineFailed("the model's logits are not finite")))
                continue
            if taken:
                drawn.append((request, taken))
            if was_reading and request.lease is not None and not work.scored:
                # whoever begins alike need not wait until this request has ended
                self._pages.publish(request.lease, request.to_read[: request.num_cached])
        return drawn

    # memory

    @property
    def allocated_bytes(self) -> int:
        """Of the pages, for `Accounts`."""
        kv_bytes = 0 if self._engine is None else self._engine.kv_bytes
        return kv_bytes + (self._draft.allocated_bytes if self._draft else 0)

    reserved_bytes = allocated_bytes

    @property
    def touched_bytes(self) -> int:
        """Of pages that were written to, some time."""
        own_bytes = 0 if self._engine is None else self._num_touched * self._engine.page_bytes
        return own_bytes + (self._draft.touched_bytes if self._draft else 0)

    @property
    def _cached_bytes(self) -> int:
        """Of pages that nobody uses, and that a prompt may find."""
        if self._engine is None:
            return 0
        own_bytes = self._pages.num_evictable * self._engine.page_bytes
        return own_bytes + (self._draft.cached_bytes if self._draft else 0)

    def park(self) -> None:
        if self._engine is None:
            return
        with mapped():
            self._engine.close()
            self._engine = None
            self._pages.clear()
            self._num_touched = 0
            self._residence.park()
            if self._draft is not None:
                self._draft.park()
            memory_pages.trim()
        self._accounts.parked = True

    def unpark(self) -> None:
        if self._engine is not None:
            return
        self._residence.unpark()
        if self._draft is not None:
            self._draft.unpark()
        self._engine = self._open_engine()
        self._accounts.parked = False

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._draft is not None:
            self._draft.close()

    def progress(self) -> str:
        return ""

    def memory(self, requests: Sequence[Request]) -> MemoryReport:
        copies = sum(r.parked.size_bytes for r in requests if r.parked is not None)
        used = 0
        if self._engine is not None:
            used = self._pages.num_used * self._engine.page_bytes + copies
            used += self._draft.used_bytes if self._draft else 0
        return self._accounts.report(copies, used, self._cached_bytes)


def num_pages(num_tokens: int) -> int:
    """That so many tokens take."""
    return -(-num_tokens // binding.PAGE_TOKENS)


_CPU = torch.device("cpu")
