"""A native request to a snapshot and back: keys and values, and what the next token depends on.

Between two steps nothing is pending: logits are drawn from in the step that made them. What the
penalties count and how far the random numbers are follow from the tokens, and are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import torch

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import ReplicaSpec
from llmos.abi.inference import WorkItem
from llmos.drivers.native.kv import KVCopy
from llmos.drivers.native.request import Request
from llmos.drivers.native.runner import Grounds, Runner
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.snapshots.file import SnapshotReader, rejected
from llmos.drivers.snapshots.shelf import (
    Identity,
    Progress,
    Shelf,
    decode_state,
    refuse_differing,
    tokens_of,
)
from llmos.drivers.text.detokenize import Decoding, Detokenizer, DetokenizerState
from llmos.drivers.text.grammar import GrammarsOf
from llmos.drivers.text.stop import StopStrings
from llmos.errors import ContextLengthExceeded


class NativeState(msgspec.Struct, frozen=True):
    """The driver's part of the header.

    `layers` are heads, key size and value size of each; `engine` lays their KV out in its own way.
    `num_found` tokens of the prompt had their KV from others when it began.
    """

    seed: int
    max_new: int
    exact: bool
    only_exact: bool
    withheld: str
    detokenizer: DetokenizerState | None
    layers: list[tuple[int, int, int]]
    grounds: Grounds
    engine: str = "torch"
    num_found: int = 0


class Snapshots:
    """Of one loaded model."""

    def __init__(
        self,
        spec: ReplicaSpec,
        runner: Runner,
        decoding: Decoding | None,
        grammars: GrammarsOf,
    ) -> None:
        info = runner.info
        identity = Identity(
            driver="native",
            weights_digest=spec.weights_digest,
            dtype=info.dtype,
            device=info.device.partition(":")[0],
            num_threads=runner.num_threads,
        )
        self.shelf = Shelf(spec, identity)
        self._runner = runner
        self._decoding = decoding
        self._grammars = grammars

    def write(self, request: Request, folder: str = "") -> SnapshotRef:
        """The request as it is now, to a folder (empty: the replica's own).

        Raises DiskFull, StorageError.
        """
        state = NativeState(
            seed=request.sampler.seed,
            max_new=request.max_new,
            exact=request.exact,
            only_exact=request.only_exact,
            withheld=request.stops.withheld,
            detokenizer=None if request.detokenizer is None else request.detokenizer.state(),
            layers=self._runner.layers,
            grounds=self._runner.grounds,
            engine=self._runner.info.engine,
            num_found=request.num_found,
        )
        num_cached = request.num_cached
        return self.shelf.write(
            request.item,
            Progress(request.generated, num_cached, request.num_found),
            state,
            _bytes_of(self._tensors(request)),
            self._runner.kv_bytes(num_cached),
            folder,
        )

    def _tensors(self, request: Request) -> Iterable[torch.Tensor]:
        if request.num_cached == 0:
            return ()
        if request.slot is not None:
            return self._runner.kv_of(request)
        assert request.parked is not None
        return request.parked.tensors()

    def read(self, item: WorkItem, ref: SnapshotRef, prompt: list[int], order: int) -> Request:
        """The request as it was, parked. Raises SnapshotRejected, ContextLengthExceeded."""
        with self.shelf.open(item, ref) as reader:
            state = decode_state(reader, NativeState)
            refuse_differing(self._differing(state))
            generated, num_cached = tokens_of(reader.header), reader.header.num_cached
            self._check_length(len(prompt), state.max_new)
            self._check_progress(reader, len(prompt), len(generated), state.max_new)
            parked = self._runner.empty_copy(num_cached)
            reader.read_payload(_bytes_of(parked.tensors()), ref.digest)
        return self._make(item, state, prompt, order, generated, parked)

    def _differing(self, state: NativeState) -> dict[str, tuple[object, object]]:
        differing: dict[str, tuple[object, object]] = {}
        if state.layers != self._runner.layers:
            differing["layers"] = len(state.layers), len(self._runner.layers)
        if state.engine != self._runner.info.engine:
            differing["engine"] = state.engine, self._runner.info.engine
        # without a promise of equal bits any step may follow any other
        for name in Grounds.__struct_fields__ if state.exact else ():
            there, here = getattr(state.grounds, name), getattr(self._runner.grounds, name)
            if there != here:
                differing[name] = there, here
        return differing

    def _check_length(self, num_prompt: int, max_new: int) -> None:
        num_prompt -= len(self._runner.info.virtual)
        if num_prompt + max_new > self._runner.info.context_length:
            raise ContextLengthExceeded(
                f"{num_prompt} prompt tokens and {max_new} to generate exceed this replica's "
                f"context of {self._runner.info.context_length} tokens"
            )

    def _check_progress(
        self, reader: SnapshotReader, num_prompt: int, num_generated: int, max_new: int
    ) -> None:
        cached = reader.header.num_cached
        num_given = len(reader.header.item.generated) // 4  # a recomputed request's, read anew
        begun = cached == num_prompt + num_generated - 1 and num_generated < max_new
        reading = num_generated == num_given and 0 <= cached < num_prompt + num_given
        whole = begun if num_generated > num_given else reading
        if not whole or reader.header.payload_bytes != self._runner.kv_bytes(cached):
            raise rejected("damaged", f"holds {cached} tokens where it cannot")

    def _make(  # noqa: PLR0917 (all that a request is)
        self,
        item: WorkItem,
        state: NativeState,
        prompt: list[int],
        order: int,
        generated: list[int],
        parked: KVCopy,
    ) -> Request:
        return Request(
            item=item,
            order=order,
            prompt=prompt,
            max_new=state.max_new,
            eos_ids=frozenset() if item.sampling.ignore_eos else self._runner.info.eos_ids,
            exact=state.exact,
            sampler=RowSampler(
                item.sampling,
                prompt[len(self._runner.info.virtual) :],
                state.seed,
                generated,
                self._grammars.start(item.grammar, generated),
            ),
            stops=StopStrings(item.sampling.stop, state.withheld),
            detokenizer=self._restart(state.detokenizer, item.shown),
            piece_of=None if self._decoding is None else self._decoding.piece,
            generated=generated,
            num_cached=parked.num_tokens,
            parked=parked if parked.num_tokens else None,
            num_found=state.num_found,
            num_virtual=len(self._runner.info.virtual),
            only_exact=state.only_exact and state.grounds == self._runner.grounds,
        )

    def _restart(self, state: DetokenizerState | None, shown: list[int]) -> Detokenizer | None:
        if state is None and self._decoding is None:
            return None
        try:
            if state is None or self._decoding is None:
                raise ValueError("one side has no tokenizer")
            return self._decoding.restart(state, shown)
        except ValueError as error:
            raise rejected("differs", f"differs in its tokenizer: {error}") from error


def _bytes_of(tensors: Iterable[torch.Tensor]) -> Iterator[memoryview]:
    """The memory of contiguous tensors in host memory, of others a copy of it; one at a time."""
    for tensor in tensors:
        if tensor.numel():
            flat = tensor.detach().contiguous().cpu().view(-1)
            yield flat.view(torch.uint8).numpy().data
