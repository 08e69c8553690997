"""A request to a snapshot and back: llama.cpp's state of its sequence, and what the next token
depends on besides."""

from __future__ import annotations

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import ReplicaSpec
from llmos.abi.inference import WorkItem
from llmos.drivers.gguf.engine import Engine
from llmos.drivers.gguf.library import version
from llmos.drivers.gguf.limits import LIMITS
from llmos.drivers.gguf.request import Request
from llmos.drivers.sampling.rows import RowSampler
from llmos.drivers.snapshots.file import SnapshotReader, rejected
from llmos.drivers.snapshots.shelf import (
    Identity,
    Progress,
    Shelf,
    decode_state,
    refuse_differing,
    tokens_of,
)
from llmos.drivers.text.answer import Answer
from llmos.drivers.text.detokenize import Detokenizer, DetokenizerState
from llmos.drivers.text.stop import StopStrings
from llmos.errors import ContextLengthExceeded
from llmos.weights import ModelFacts


class Grounds(msgspec.Struct, frozen=True):
    """What bits rest on besides weights and threads, and what a sequence's state is made for."""

    engine: str
    kv_dtype: str
    exact_chunk: int


class GGUFState(msgspec.Struct, frozen=True):
    """The driver's part of the header."""

    seed: int
    max_new: int
    exact: bool
    only_exact: bool
    withheld: str
    detokenizer: DetokenizerState
    grounds: Grounds


class Snapshots:
    """Of one loaded model."""

    def __init__(
        self, spec: ReplicaSpec, facts: ModelFacts, engine: Engine, context_length: int
    ) -> None:
        identity = Identity(
            driver="gguf",
            weights_digest=spec.weights_digest,
            dtype=facts.dtype,
            device="cpu",
            num_threads=max(1, spec.num_threads),
        )
        self.shelf = Shelf(spec, identity)
        self._engine = engine
        self._context_length = context_length
        self._eos_ids = engine.vocab.eos_ids()
        self._decoding = engine.vocab.decoding()
        self._grounds = Grounds(version(), facts.kv_dtype, LIMITS.exact_chunk)

    def write(self, request: Request, folder: str = "") -> SnapshotRef:
        """The request as it is now, to a folder (empty: the replica's own).

        Raises DiskFull, StorageError.
        """
        answer = request.answer
        state = GGUFState(
            seed=request.sampler.seed,
            max_new=answer.max_new,
            exact=request.exact,
            only_exact=request.only_exact,
            withheld=answer.stops.withheld,
            detokenizer=answer.detokenizer.state(),
            grounds=self._grounds,
        )
        payload = request.parked
        if payload is None and request.slot is not None and request.num_cached:
            payload = self._engine.state(request.slot)
        parts = () if payload is None else (payload,)
        progress = Progress(answer.generated, request.num_cached)
        num_bytes = 0 if payload is None else len(payload)
        return self.shelf.write(request.item, progress, state, parts, num_bytes, folder)

    def read(self, item: WorkItem, ref: SnapshotRef, prompt: list[int], order: int) -> Request:
        """The request as it was, parked. Raises SnapshotRejected, ContextLengthExceeded."""
        with self.shelf.open(item, ref) as reader:
            state = decode_state(reader, GGUFState)
            self._refuse_other_grounds(state)
            generated = tokens_of(reader.header)
            if len(prompt) + state.max_new > self._context_length:
                raise ContextLengthExceeded(
                    f"{len(prompt)} prompt tokens and {state.max_new} to generate exceed this "
                    f"replica's context of {self._context_length} tokens"
                )
            self._check_progress(reader, len(prompt), len(generated), state.max_new)
            payload = bytearray(reader.header.payload_bytes)
            reader.read_payload((memoryview(payload),), ref.digest)
        return self._make(item, state, prompt, order, generated, reader, payload)

    def _refuse_other_grounds(self, state: GGUFState) -> None:
        names = Grounds.__struct_fields__ if state.exact else ("kv_dtype",)
        pairs = {n: (getattr(state.grounds, n), getattr(self._grounds, n)) for n in names}
        refuse_differing({n: pair for n, pair in pairs.items() if pair[0] != pair[1]})

    @staticmethod
    def _check_progress(
        reader: SnapshotReader, num_prompt: int, num_generated: int, max_new: int
    ) -> None:
        cached = reader.header.num_cached
        num_given = len(reader.header.item.generated) // 4  # a recomputed request's, read anew
        begun = cached == num_prompt + num_generated - 1 and num_generated < max_new
        reading = num_generated == num_given and 0 <= cached < num_prompt + num_given
        whole = begun if num_generated > num_given else reading
        if not whole or bool(cached) != bool(reader.header.payload_bytes):
            raise rejected("damaged", f"holds {cached} tokens where it cannot")

    def _make(  # noqa: PLR0917 (all that a request is)
        self,
        item: WorkItem,
        state: GGUFState,
        prompt: list[int],
        order: int,
        generated: list[int],
        reader: SnapshotReader,
        payload: bytearray,
    ) -> Request:
        given = generated[: len(item.generated) // 4]
        answer = Answer(
            item=item,
            num_prompt=len(prompt),
            max_new=state.max_new,
            eos_ids=self.eos_ids(item),
            stops=StopStrings(item.sampling.stop, state.withheld),
            detokenizer=self._restart(state.detokenizer, item.shown),
            generated=generated,
        )
        return Request(
            item=item,
            order=order,
            to_read=prompt + given,
            exact=state.exact,
            sampler=RowSampler(item.sampling, prompt, state.seed, generated),
            answer=answer,
            num_cached=reader.header.num_cached,
            parked=memoryview(payload) if payload else None,
            only_exact=state.only_exact and state.grounds == self._grounds,
        )

    def eos_ids(self, item: WorkItem) -> frozenset[int]:
        """Tokens that end this request's answer."""
        return frozenset() if item.sampling.ignore_eos else self._eos_ids

    def begin(self, item: WorkItem, prompt: list[int]) -> Detokenizer:
        """For the text that follows a prompt."""
        return self._decoding.start(prompt, item.shown)

    def _restart(self, state: DetokenizerState, shown: list[int]) -> Detokenizer:
        try:
            return self._decoding.restart(state, shown)
        except ValueError as error:
            raise rejected("differs", f"differs in its tokenizer: {error}") from error
