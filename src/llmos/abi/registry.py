"""The Registry seam: named, versioned, immutable models over content-addressed blobs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from llmos.abi.inference import GENERATE
from llmos.abi.remote import RemoteSpec


class LoadCost(msgspec.Struct, frozen=True):
    """What a replica takes with its weights in some type: as `ModelVersion` says of its own."""

    footprint_bytes: int
    kv_bytes_per_token: int


class AdapterForm(enum.StrEnum):
    """What an adapter adds. MERGED becomes part of the base's matrices as they load; TOKENS are
    vectors in front of every text, PREFIX keys and values there; BOTTLENECK is layers of its own.
    """

    MERGED = "merged"
    TOKENS = "tokens"
    PREFIX = "prefix"
    BOTTLENECK = "bottleneck"


class AdapterOf(msgspec.Struct, frozen=True):
    """What makes a version an adapter of another one: how it was learned, and on what.

    `base` is that version's reference, `base_digest` its digest; it stays for as long as the
    adapter does. `size_bytes` are the files that are not the base's.
    """

    method: str
    form: AdapterForm
    base: str
    base_digest: str
    size_bytes: int = 0


class PullOptions(msgspec.Struct, frozen=True):
    """How to bring a model in. `driver` None: the one that is best for it here. `remote`: of one
    that stays elsewhere, where that is. `base`: of an adapter that says not, the version here that
    it was learned on."""

    driver: str | None = None
    remote: RemoteSpec | None = None
    base: str | None = None


class ModelVersion(msgspec.Struct, frozen=True):
    """One immutable version. `ref` is `name:version`.

    `folder` holds its files under their own names (hard links to blobs), read-only. `digest` is
    over names and contents of all its files. `footprint_bytes` is an upper bound of what a replica
    needs besides KV. `prepare` is the entry string of its Preparer. `options` go to the driver.
    `dtype` is what the files hold; `loads` are the types it can be loaded in, with what each takes
    (empty: as its files alone, or it was registered before that was known). `loaded_as`: the type
    it has or would have in memory, and why, and its draft model; only in the answer to `ShowModel`.
    `chosen` says why it has its driver. `egress` are the hosts its driver reaches out to, `secrets`
    the names of those it is given. `kinds` are what it can be asked for; the first is what it is
    for. `adapter`: of one that is an adapter over another version, whose weights it shares.
    """

    model_id: str
    name: str
    version: str
    driver: str
    format: str
    folder: str
    digest: str
    size_bytes: int
    context_length: int
    vocab_size: int
    prepare: str
    source: str
    created_ns: int
    architecture: str = ""
    dtype: str = ""
    num_parameters: int = 0
    kv_bytes_per_token: int = 0
    footprint_bytes: int = 0
    has_chat_template: bool = False
    license: str = ""
    aliases: list[str] = []
    options: dict[str, Any] = {}
    loads: dict[str, LoadCost] = {}
    loaded_as: str = ""
    chosen: str = ""
    egress: list[str] = []
    secrets: list[str] = []
    kinds: list[str] = msgspec.field(default_factory=lambda: [GENERATE])
    adapter: AdapterOf | None = None

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.version}"


class PullProgress(msgspec.Struct, frozen=True, tag="pull_progress"):
    """How far a pull is. `total_bytes` 0: not known yet.

    `phase`: check, download, quantize, hash, register.
    """

    phase: str
    file: str
    done_bytes: int
    total_bytes: int


class Registry(Protocol):
    """`resolve` and `list` read memory only: the gate calls them for every request."""

    def resolve(self, ref: str) -> ModelVersion:
        """`name` (its newest version), `name:version` or `name:alias`. Raises ModelNotFound."""
        ...

    def list(self) -> list[ModelVersion]: ...

    async def pull(
        self,
        source: str,
        name: str | None,
        progress: Callable[[PullProgress], None],
        options: PullOptions = ...,
    ) -> ModelVersion:
        """`hf:org/name[@revision]`, `file:/absolute/path`, `upload:ID`, `openai:URL#MODEL`.

        Checked and hashed before anything is visible; a refused pull leaves nothing behind. Equal
        contents under an equal name are the version that exists already. Raises ModelRejected,
        PluginError (its engine is missing), NotFound, Conflict, StorageError.
        """
        ...

    async def quantize(
        self, ref: str, to: str, name: str | None, progress: Callable[[PullProgress], None]
    ) -> ModelVersion:
        """A version of `name` (None: `NAME-TO`) whose weights are `to`, made of one that is here.

        Visible only when it is whole. Raises ModelNotFound, InvalidRequest (`to`), Conflict (it is
        quantized), ModelRejected (it cannot be), DiskFull, StorageError.
        """
        ...

    async def set_alias(self, ref: str, alias: str, reason: str, set_by: str) -> ModelVersion:
        """Let `name:alias` be this version from now on, whatever it was; the version as it stands.

        Raises ModelNotFound, InvalidRequest (`alias`), StorageError.
        """
        ...

    async def drop_alias(self, ref: str) -> ModelVersion:
        """`name:alias` is nothing any more. Raises ModelNotFound, InvalidRequest (it is
        no alias that was given)."""
        ...

    async def register(self, folder: Path, name: str, source: str) -> ModelVersion:
        """A folder that was made here, as a version of `name`. It is copied; checked as a pull's.

        Raises InvalidRequest (a name that is none), ModelRejected, DiskFull, StorageError.
        """
        ...

    async def remove(self, ref: str) -> ModelVersion:
        """Forget a version and collect blobs nobody refers to. Raises ModelNotFound, Conflict (it
        has an alias, or an adapter)."""
        ...
