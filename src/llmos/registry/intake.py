"""From a source to checked blobs: the part of a pull that works in a thread."""

from __future__ import annotations

import ipaddress
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.registry import AdapterOf
from llmos.abi.remote import REMOTE_FILE, RemoteSpec
from llmos.errors import ModelNotFound, ModelRejected, PermissionDenied
from llmos.registry import adapters, hub
from llmos.registry.adapters import FindBase
from llmos.registry.choice import ChooseDriver, DriverChoice
from llmos.registry.config import RegistryConfig
from llmos.registry.names import FolderSource, HubSource
from llmos.registry.progress import Meter, total_size
from llmos.registry.selection import scan, scan_file
from llmos.storage.blobs import Blobs, Hold
from llmos.storage.disk import mapped, remove_tree
from llmos.storage.home import Home
from llmos.weights import ModelFacts, inspect
from llmos.weights.conversion import needed_bytes, quantize_folder
from llmos.weights.digest import file_digest, names_digest
from llmos.weights.quantized import QuantizedFolder
from llmos.weights.remote import encode_spec, remote_facts


@dataclass(frozen=True, slots=True)
class Intake:
    """A model that was checked and whose files are blobs, but which nobody can see yet."""

    facts: ModelFacts
    choice: DriverChoice
    files: dict[str, BlobRef]
    remote: RemoteSpec | None = None
    adapter: AdapterOf | None = None

    @property
    def digest(self) -> str:
        return names_digest((name, blob.digest) for name, blob in self.files.items())

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.files.values())


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to take a model in: `driver` None: by the best; `base`: of an adapter that says not."""

    find_base: FindBase
    driver: str | None = None
    base: str | None = None


class Intaker:
    """Takes models in. Blocking; every method leaves `scratch/` as it found it."""

    def __init__(
        self, home: Home, blobs: Blobs, config: RegistryConfig, choose_driver: ChooseDriver
    ) -> None:
        self._home = home
        self._blobs = blobs
        self._config = config
        self._choose = choose_driver

    def take_hub(self, source: HubSource, hold: Hold, meter: Meter, wishes: Wishes) -> Intake:
        """Download, check, adopt."""
        staging = self._home.scratch / f"pull-{uuid.uuid4().hex}"
        try:
            staging.mkdir(mode=0o700)
            digests = hub.fetch(
                source, staging, self._config, self._blobs, meter, pulls=self._home.pulls
            )
            if adapters.is_adapter(digests):
                return self._take_adapter(staging, list(digests), hold, meter, wishes)
            return self._adopt(staging, digests, hold, meter, wishes.driver)
        finally:
            remove_tree(staging)

    def take_upload(self, folder: Path, hold: Hold, meter: Meter, wishes: Wishes) -> Intake:
        """Check and adopt an upload's folder, which is ours to consume."""
        try:
            meter.begin("check", "", 0)
            names = self._scan(folder)
            if adapters.is_adapter(names):
                return self._take_adapter(folder, names, hold, meter, wishes)
            return self._adopt(folder, dict.fromkeys(names), hold, meter, wishes.driver)
        finally:
            remove_tree(folder)

    def take_folder(self, source: FolderSource, hold: Hold, meter: Meter, wishes: Wishes) -> Intake:
        """Check a folder (or a file) where it is, copy it, and check the copy: only that cannot
        change."""
        folder = Path(source.folder)
        meter.begin("check", folder.name, 0)
        try:
            if not folder.exists():
                raise ModelNotFound(f"there is no folder or file {folder}")
            if folder.is_dir():
                names = self._scan(folder)
            else:
                folder, names = folder.parent, scan_file(folder)
                self._check_size(folder, names)
            total_bytes = total_size(folder, names)
        except OSError as error:
            raise ModelRejected(f"{error.filename}: cannot be read: {error.strerror}") from None
        if adapters.is_adapter(names):
            return self._take_adapter(folder, names, hold, meter, wishes)
        self._choose(inspect(folder, names), wishes.driver)
        self._blobs.require_free(total_bytes)
        files = self._copy({name: folder / name for name in names}, total_bytes, hold, meter)
        facts = self._inspect_copy(files)
        return Intake(facts, self._choose(facts, wishes.driver), files)

    def _copy(
        self, paths: Mapping[str, Path], total_bytes: int, hold: Hold, meter: Meter
    ) -> dict[str, BlobRef]:
        meter.begin("hash", "", total_bytes)
        files = {}
        for name, path in paths.items():
            meter.begin("hash", name, total_bytes)
            files[name] = self._blobs.copy(path, hold, meter.add)
        return files

    def _inspect_copy(self, files: Mapping[str, BlobRef]) -> ModelFacts:
        checking = self._blobs.link(f"check-{uuid.uuid4().hex}", _digests(files))
        try:
            return inspect(checking, sorted(files))
        finally:
            self._blobs.unlink(checking.name)

    def _take_adapter(
        self, folder: Path, names: list[str], hold: Hold, meter: Meter, wishes: Wishes
    ) -> Intake:
        """Copy an adapter's own files, and lay them over those of its base."""
        staging = self._home.scratch / f"adapter-{uuid.uuid4().hex}"
        try:
            with mapped("making a folder for an adapter"):
                staging.mkdir(mode=0o700)
            placed = adapters.place(folder, names, wishes.base, wishes.find_base, staging)
            total_bytes = sum(path.stat().st_size for path in placed.own.values())
            self._blobs.require_free(total_bytes)
            own = self._copy(placed.own, total_bytes, hold, meter)
        except OSError as error:
            raise ModelRejected(f"{error.filename}: cannot be read: {error.strerror}") from None
        finally:
            remove_tree(staging)
        self._blobs.keep([blob.digest for blob in placed.shared.values()], hold)
        files = placed.shared | own
        facts = self._inspect_copy(files)
        licence = facts.license or placed.base.version.license  # what it is made of is no freer
        facts = msgspec.structs.replace(facts, license=licence)
        choice = self._choose(facts, wishes.driver)
        return Intake(facts, choice, files, adapter=placed.describe(facts, files))

    def take_remote(
        self, spec: RemoteSpec, hold: Hold, meter: Meter, driver: str | None = None
    ) -> Intake:
        """Nothing is asked of it: what is taken in says where it is. Raises PermissionDenied."""
        for host in spec.hosts:
            if not is_allowed(host, self._config.egress):
                raise PermissionDenied(f"{host} is not one of registry.egress", param="source")
        facts = remote_facts(spec)
        choice = self._choose(facts, driver)
        staging = self._home.scratch / f"remote-{uuid.uuid4().hex}"
        try:
            staging.mkdir(mode=0o700)
            path = staging / REMOTE_FILE
            path.write_bytes(encode_spec(spec))
            meter.begin("hash", REMOTE_FILE, path.stat().st_size)
            files = {REMOTE_FILE: self._blobs.adopt(path, hold, meter.add, None)}
        finally:
            remove_tree(staging)
        return Intake(facts, choice, files, spec)

    def take_quantized(self, source: Path, bits: int, hold: Hold, meter: Meter) -> Intake:
        """Quantize a version's folder, check what was made, and adopt it."""
        staging = self._home.scratch / f"quantize-{uuid.uuid4().hex}"
        meter.begin("check", source.name, 0)
        self._blobs.require_free(needed_bytes(source, bits))
        try:
            meter.begin("quantize", "", inspect(source).weights_bytes)
            quantize_folder(source, staging, bits, meter.add)
            QuantizedFolder(staging).check()
            return self._adopt(staging, dict.fromkeys(self._scan(staging)), hold, meter)
        finally:
            remove_tree(staging)

    def digest(self, folder: Path) -> str:
        """Of a local model's files as they are, without taking them in. Raises ModelRejected."""
        return names_digest((name, file_digest(folder / name)) for name in self._scan(folder))

    def _scan(self, folder: Path) -> list[str]:
        names = scan(folder)
        self._check_size(folder, names)
        return names

    def _check_size(self, folder: Path, names: list[str]) -> None:
        if len(names) > self._config.max_model_files:
            raise ModelRejected(f"{folder.name}: more than {self._config.max_model_files} files")
        size_bytes = total_size(folder, names)
        if size_bytes > self._config.max_model_bytes:
            raise ModelRejected(
                f"{folder.name}: {size_bytes} bytes, over the limit of "
                f"{self._config.max_model_bytes}"
            )

    def _adopt(
        self,
        folder: Path,
        digests: Mapping[str, str | None],
        hold: Hold,
        meter: Meter,
        driver: str | None = None,
    ) -> Intake:
        facts = inspect(folder, list(digests))
        choice = self._choose(facts, driver)
        total_bytes = total_size(folder, list(digests))
        files = {}
        for name, digest in digests.items():
            meter.begin("hash", name, total_bytes)
            files[name] = self._blobs.adopt(folder / name, hold, meter.add, digest)
        return Intake(facts, choice, files)


def is_allowed(host: str, patterns: list[str]) -> bool:
    """`host` is `name:port`; a pattern without a port allows them all. What only this machine's
    own link knows, such as a cloud's metadata, is not meant by a pattern that fits everything."""
    name = host.rpartition(":")[0]
    if _is_link_local(name):
        patterns = [p for p in patterns if p.strip("*:")]
    return any(fnmatchcase(host, p.lower()) or fnmatchcase(name, p.lower()) for p in patterns)


def _is_link_local(name: str) -> bool:
    """Also where it is written as a resolver would read it: `2852039166`, `0xa9fea9fe`."""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_link_local or address.is_multicast or address.is_unspecified


def _digests(files: Mapping[str, BlobRef]) -> dict[str, str]:
    return {name: blob.digest for name, blob in files.items()}
