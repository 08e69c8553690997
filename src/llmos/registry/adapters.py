"""An adapter taken in: its own files, and beside them those of the version it was learned on.

A version of an adapter has the base's files as its own: the same blobs under the same names, which
cost nothing. So it is a folder like any other, and the base's weights outlive whatever happens to
the base's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.registry import AdapterOf, ModelVersion
from llmos.errors import InvalidRequest, ModelRejected, StorageError
from llmos.registry import catalog
from llmos.registry.selection import refuse_pickles
from llmos.storage.blobs import Blobs
from llmos.storage.database import Database
from llmos.storage.disk import mapped
from llmos.weights import ModelFacts
from llmos.weights.adapters import (
    CLAIM,
    CONFIG,
    FOLDER,
    WEIGHTS,
    Claim,
    has_adapter,
    read_adapter,
)
from llmos.weights.adapting import check_alone, edits_of, named_for
from llmos.weights.digest import file_digest
from llmos.weights.folder import INDEX, SINGLE, has_safetensors, read_weight_map
from llmos.weights.safetensors import Tensor, read_tensors

_OF_THE_BASE_ALONE = ("README.md", "training.json")
_FIND_S = 60.0


class Base(NamedTuple):
    """A version an adapter goes with, and its files."""

    version: ModelVersion
    files: dict[str, BlobRef]

    @property
    def digests(self) -> dict[str, str]:
        """Of its weights."""
        return {name: blob.digest for name, blob in self.weights.items()}

    @property
    def weights(self) -> dict[str, BlobRef]:
        """Files of weights and their index, by name: what is read of it, whatever else is there."""
        if SINGLE in self.files:
            return {SINGLE: self.files[SINGLE]}
        shards = sorted(set(read_weight_map(_path(self.files[INDEX])).values()))
        return {name: self.files[name] for name in (INDEX, *shards)}

    def tensors(self) -> list[Tensor]:
        """Of its weights."""
        return [
            tensor
            for name, blob in self.weights.items()
            if name != INDEX
            for tensor in read_tensors(_path(blob))
        ]


def _path(blob: BlobRef) -> Path:
    assert blob.path is not None
    return Path(blob.path)


FindBase = Callable[[str | None, Claim | None], Base]
"""The version that was named, or whose weights a claim names. Blocking. Raises ModelNotFound,
ModelRejected."""


class Placed(NamedTuple):
    """Where an adapter's own files lie, by the names they get, and what it is an adapter of."""

    own: dict[str, Path]
    shared: dict[str, BlobRef]
    base: Base

    def describe(self, facts: ModelFacts, files: Mapping[str, BlobRef]) -> AdapterOf:
        """For its version."""
        assert facts.adapter is not None
        version = self.base.version
        theirs = {blob.digest for blob in self.base.files.values()}
        own_bytes = sum(blob.size_bytes for blob in files.values() if blob.digest not in theirs)
        found = facts.adapter
        return AdapterOf(found.method, found.form, version.ref, version.digest, own_bytes)


def is_bare(names: Iterable[str]) -> bool:
    """Whether a folder or repository holds an adapter alone, as PEFT writes it."""
    found = list(names)
    return CONFIG in found and WEIGHTS in found and not has_safetensors(found)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether it holds one at all."""
    found = list(names)
    return has_adapter(found) or is_bare(found)


def adapter_weights(names: Iterable[str]) -> list[str]:
    """The one large file of a repository that holds an adapter: its base's weights, where it has
    them too, are here. Empty where it holds none. Raises ModelRejected."""
    found = list(names)
    if not has_adapter(found):
        return [WEIGHTS] if is_bare(found) else []
    if f"{FOLDER}/{WEIGHTS}" in found:
        return [f"{FOLDER}/{WEIGHTS}"]
    refuse_pickles(name for name in found if name.startswith(f"{FOLDER}/"))
    raise ModelRejected(f"{FOLDER}/{WEIGHTS}: missing")


def place(
    folder: Path, names: list[str], base_ref: str | None, find_base: FindBase, scratch: Path
) -> Placed:
    """Find the base of the adapter in a folder. `scratch` is a folder for a file to be written to.

    Raises ModelRejected (another base, or one that cannot be), ModelNotFound, InvalidRequest (it
    does not say what its base is, and nobody else does).
    """
    own = {name: folder / name for name in names}
    if is_bare(names):
        if base_ref is None:
            raise InvalidRequest(
                f"{CONFIG}: an adapter: say which version here it is of (base)", param="base"
            )
        base = _checked(find_base(base_ref, None))
        tensors = base.tensors()
        adapter = read_adapter(folder, Claim(base.version.ref, base.digests))
        claim = named_for(adapter, [tensor.name for tensor in tensors])
        adapter = msgspec.structs.replace(adapter, claim=claim)
        for name in (CONFIG, WEIGHTS):
            own[f"{FOLDER}/{name}"] = own.pop(name)
        own[f"{FOLDER}/{CLAIM}"] = _write(claim, scratch / CLAIM)
    else:
        adapter = read_adapter(folder / FOLDER)
        base = _checked(find_base(base_ref, adapter.claim))
        tensors = base.tensors()
        _drop_same_weights(own, adapter.claim)
    if not _is_configured(own, base):
        found = {adapter.claim.path_of(tensor.name): tensor for tensor in tensors}
        check_alone(edits_of(adapter), found)
    return Placed(own, _shared(own, base), base)


def _write(claim: Claim, path: Path) -> Path:
    with mapped(f"writing {CLAIM}"):
        path.write_bytes(msgspec.json.encode(claim))
    return path


def _is_configured(own: Mapping[str, Path], base: Base) -> bool:
    """Whether it brings a configuration that is not its base's."""
    there, found = base.files.get("config.json"), own.get("config.json")
    return found is not None and (there is None or file_digest(found) != there.digest)


def _checked(base: Base) -> Base:
    version = base.version
    if version.adapter is not None:
        raise ModelRejected(f"{version.ref} is an adapter: there are no adapters of adapters")
    if version.format != "safetensors" or version.dtype in ("int8", "int4"):
        kind = version.dtype if version.format == "safetensors" else version.format
        raise ModelRejected(f"{version.ref} is {kind}: an adapter goes with plain safetensors")
    return base


def _drop_same_weights(own: dict[str, Path], claim: Claim) -> None:
    """Of a folder that has its base's weights, too. Raises ModelRejected for any others."""
    for name in [name for name in own if name.endswith(".safetensors") and "/" not in name]:
        if claim.weights.get(name) != file_digest(own[name]):
            raise ModelRejected(f"{name}: beside an adapter there are no weights but its base's")
        del own[name]
    for name in claim.weights:
        own.pop(name, None)


def _shared(own: Mapping[str, Path], base: Base) -> dict[str, BlobRef]:
    """Of the base's files: its weights, and where the adapter has no configuration of its own,
    everything that is not the base's alone and that the adapter does not bring itself."""
    if "config.json" in own:
        return base.weights
    return {
        name: blob
        for name, blob in base.files.items()
        if name not in own
        and name not in _OF_THE_BASE_ALONE
        and (name in base.weights or not name.endswith(".safetensors"))
    }


class Bases:
    """Finds bases among what is registered; `find` is called by threads."""

    def __init__(self, database: Database, blobs: Blobs, index: catalog.Index) -> None:
        self._database = database
        self._blobs = blobs
        self._index = index

    def finder(self) -> FindBase:
        """For a thread that works for the loop this is called on."""
        loop = asyncio.get_running_loop()

        def find(ref: str | None, claim: Claim | None) -> Base:
            finding = asyncio.run_coroutine_threadsafe(self._find(ref, claim), loop)
            try:
                base = finding.result(_FIND_S)
            except TimeoutError:  # an OSError, and none of a file
                finding.cancel()
                raise StorageError(f"the base was not found within {_FIND_S:.0f} s") from None
            if claim is not None and claim.weights != _checked(base).digests:
                raise ModelRejected(
                    f"it is an adapter of {claim.base[:200]!r}, whose weights are others than "
                    f"those of {base.version.ref}"
                )
            return base

        return find

    async def _find(self, ref: str | None, claim: Claim | None) -> Base:
        if ref is not None:
            version = self._index.resolve(ref)
        else:
            assert claim is not None
            version = await self._holder(claim)
        files = (await self._database.read(catalog.load_files)).get(version.model_id, {})
        return Base(version, {name: self._blob(digest) for name, digest in files.items()})

    async def _holder(self, claim: Claim) -> ModelVersion:
        """The version with a claim's weights: the one of its name, else the newest."""
        files = await self._database.read(catalog.load_files)
        wanted, is_one = claim.weights.items(), SINGLE in claim.weights
        ids = {
            model_id
            for model_id, of_it in files.items()
            if wanted <= of_it.items() and is_one == (SINGLE in of_it)
        }
        held = [v for v in self._index.all() if v.model_id in ids and v.adapter is None]
        if not held:
            raise ModelRejected(
                f"it is an adapter of {claim.base[:200]!r}, and no version here has those weights "
                f"({', '.join(sorted(claim.weights.values()))[:200]}): pull that first"
            )
        name = claim.base.partition(":")[0]
        return max(held, key=lambda v: (v.ref == claim.base, v.name == name, v.created_ns))

    def _blob(self, digest: str) -> BlobRef:
        path = self._blobs.path(digest)
        return BlobRef(digest, path.stat().st_size, str(path))


def adapters_of(version: ModelVersion, versions: Iterable[ModelVersion]) -> list[str]:
    """References of the adapters that go with a version."""
    return [v.ref for v in versions if v.adapter is not None and v.adapter.base == version.ref]
