"""Fetching a repository from a model hub with the hub's own client.

What is downloaded is what the commit named at the start says: sizes, SHA-256 of large files and git
object ids of small ones are verified before anything is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmos.errors import (
    DigestMismatch,
    DiskFull,
    LLMOSError,
    ModelNotFound,
    ModelRejected,
    PermissionDenied,
    StorageError,
)
from llmos.registry.adapters import adapter_weights
from llmos.registry.config import RegistryConfig
from llmos.registry.names import HubSource
from llmos.registry.partials import Partials
from llmos.registry.progress import Meter, Stopped
from llmos.registry.selection import (
    checked_name,
    require_basics,
    select_small,
    select_weights,
)
from llmos.storage.blobs import Blobs
from llmos.storage.disk import FULL
from llmos.weights.digest import file_digest
from llmos.weights.folder import INDEX, read_weight_map
from llmos.weights.gguf_inspection import SUFFIX

_QUERY = re.compile(r"\?[^\s'\"]+")
"""Of a URL in a message: signatures and tokens are in there."""


def fetch(
    source: HubSource,
    staging: Path,
    config: RegistryConfig,
    blobs: Blobs,
    meter: Meter,
    *,
    pulls: Path,
) -> dict[str, str]:
    """Download a model's files into `staging`; their names and verified digests. Blocking. What
    has come of the weights when that ends early stays in `pulls`, for the next time.

    Raises ModelNotFound, PermissionDenied, ModelRejected, DigestMismatch, DiskFull, StorageError.
    """
    with _mapped(source):
        _set_up_client()
        repository = _Repository(source, staging, config, meter)
        offered = _offered(source, list(repository.files))
        small = select_small(offered)
        weights = adapter_weights(offered)
        small = [name for name in small if name not in weights]
        if not weights:
            require_basics(offered)
            weights = select_weights(offered, [])  # refuses before anything is moved
        repository.check_limits(small + weights)
        meter.begin("download", "", repository.total_bytes(small + weights))
        for name in small:
            repository.download(name)
        if INDEX in small and not weights:
            weights = select_weights(offered, read_weight_map(staging / INDEX).values())
        names = small + weights
        total_bytes = repository.check_limits(names)
        blobs.require_free(total_bytes)
        meter.begin("download", "", total_bytes)
        partials = Partials(pulls, repository.identity, staging / ".parts")
        with partials.held():
            try:
                for name in weights:
                    repository.download_weights(name, partials)
            except OSError as error:
                if error.errno in FULL:
                    partials.drop()
                raise
            meter.begin("hash", "", total_bytes)
            for name in weights:
                (staging / name).parent.mkdir(exist_ok=True)
                partials.path(name).replace(staging / name)
        return {name: repository.verify(name) for name in names}


def _offered(source: HubSource, names: list[str]) -> list[str]:
    """The repository's files, or those that go with the one that was named."""
    if not source.file:
        return names
    if source.file not in names:
        found = ", ".join([n for n in names if n.lower().endswith(SUFFIX)][:12]) or "none"
        raise ModelNotFound(f"{source.repo} has no {source.file}; its GGUF files: {found}")
    return [n for n in names if not n.lower().endswith((SUFFIX, ".safetensors"))] + [source.file]


def _set_up_client() -> None:
    """Settings the client takes from the environment or not at all; ours is one process.

    No telemetry: with it the client asks the public hub for a list, whatever endpoint is
    configured, keeps that in the user's own cache, and tells the hub what else is installed. No
    Xet: it keeps a cache outside LLMOS_HOME, and cannot be stopped between two chunks.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_XET = True
    # it logs every URL, and those of large files are signed: whoever reads the log could fetch them
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class _Repository:
    """One commit of one repository, and the folder its files are downloaded to."""

    def __init__(
        self, source: HubSource, staging: Path, config: RegistryConfig, meter: Meter
    ) -> None:
        from huggingface_hub import HfApi

        self._source = source
        self._staging = staging
        self._config = config
        self._meter = meter
        # False, not None: None would send whatever token lies about on this machine
        self._token = config.hub_token.get_secret_value() if config.hub_token else False
        meter.begin("check", source.repo, 0)
        info = HfApi(endpoint=config.hub_endpoint, token=self._token).model_info(
            source.repo,
            revision=source.revision,
            files_metadata=True,
            timeout=config.hub_timeout_s,
        )
        self.commit = info.sha
        self.files = {file.rfilename: file for file in info.siblings or []}
        if not isinstance(self.commit, str) or not self.commit.isalnum():
            raise ModelRejected(f"{source.repo}: the hub names no commit")

    def total_bytes(self, names: list[str]) -> int:
        return sum(self.files[name].size or 0 for name in names)

    def check_limits(self, names: list[str]) -> int:
        """The files' bytes together. Raises ModelRejected."""
        for name in names:
            checked_name(name)
            if name not in self.files:
                raise ModelRejected(f"{name}: missing, but {INDEX} names it")
        if len(names) > self._config.max_model_files:
            raise ModelRejected(f"{self._source.repo}: more than {len(names)} files")
        total_bytes = self.total_bytes(names)
        if total_bytes > self._config.max_model_bytes:
            raise ModelRejected(
                f"{self._source.repo}: {total_bytes} bytes, over the limit of "
                f"{self._config.max_model_bytes}"
            )
        return total_bytes

    def download(self, name: str) -> None:
        """One file, verified."""
        from huggingface_hub import hf_hub_download

        self._meter.begin("download", name, self._meter.total_bytes)
        hf_hub_download(
            self._source.repo,
            name,
            revision=self.commit,
            local_dir=self._staging,
            cache_dir=self._staging / ".cache",  # never a user's own cache
            endpoint=self._config.hub_endpoint,
            token=self._token,
            etag_timeout=self._config.hub_timeout_s,
            tqdm_class=_bar(self._meter, self._config.max_model_bytes),
        )

    @property
    def identity(self) -> str:
        """Of what is downloaded, the same in every pull of it."""
        return f"{self._config.hub_endpoint or ''}\n{self._source.repo}\n{self.commit}"

    def download_weights(self, name: str, partials: Partials) -> None:
        """One large file, from where its part ends."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        self._meter.begin("download", name, self._meter.total_bytes)
        size_bytes = self.files[name].size
        num_bytes = partials.num_bytes(name, size_bytes)
        self._meter.add(num_bytes)
        url = hf_hub_url(
            self._source.repo, name, revision=self.commit, endpoint=self._config.hub_endpoint
        )
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        with open_part(partials.path(name), "r+b" if num_bytes else "wb") as file:
            file.seek(num_bytes)
            http_get(
                url,
                file,
                resume_size=num_bytes,
                headers=headers,
                expected_size=size_bytes,
                tqdm_class=_bar(self._meter, self._config.max_model_bytes),
            )

    def verify(self, name: str) -> str:
        """The file's digest, if the file is what the commit says. Raises DigestMismatch."""
        path, file = self._staging / name, self.files[name]
        size_bytes = path.stat().st_size
        if file.size is not None and size_bytes != file.size:
            raise DigestMismatch(f"{name}: {file.size} bytes were promised, {size_bytes} came")
        self._meter.begin("hash", name, self._meter.total_bytes)
        digest = file_digest(path, self._meter.add)
        if file.lfs is not None:
            found, promised = digest.removeprefix("sha256:"), file.lfs.sha256
        elif file.blob_id:
            found, promised = _git_object_id(path), file.blob_id
        else:
            return digest
        if found != promised:
            raise DigestMismatch(f"{name}: digest {promised} was promised, {found} came")
        return digest


def open_part(path: Path, mode: str) -> BinaryIO:
    """`r+b` and not `ab`: a server that sends the whole file all the same has it begun again."""
    return cast(BinaryIO, path.open(mode))


def _git_object_id(path: Path) -> str:
    """What git calls a file: the only digest the hub has of files it does not keep as LFS."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _bar(meter: Meter, max_bytes: int) -> Any:
    """A tqdm that draws nothing: the client offers no other way to hear of progress."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            meter.add(int(n or 0))
            if meter.done_bytes > max_bytes:  # a hub that did not say how large its files are
                raise ModelRejected(f"over the limit of {max_bytes} bytes")

    return Bar


@contextlib.contextmanager
def _mapped(source: HubSource) -> Iterator[None]:
    """The client's errors as ours. A boundary: its error types are many and change."""
    from huggingface_hub import errors as hub

    where = f"{source.repo}@{source.revision}" if source.revision else source.repo
    try:
        yield
    except (LLMOSError, Stopped):
        raise
    except hub.GatedRepoError as error:
        raise PermissionDenied(f"{where} is gated: configure a token that may read it") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelNotFound(f"the hub has no repository {where} (or it is private)") from error
    except (hub.RevisionNotFoundError, hub.RevisionResolutionError) as error:
        raise ModelNotFound(f"the hub has no revision {where}") from error
    except hub.RemoteEntryNotFoundError as error:
        raise ModelRejected(f"{where}: the hub lists a file that it does not have") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(f"downloading {where}: {error.strerror}") from error
        text = _QUERY.sub("?…", str(error))[:300]
        failed = StorageError(f"downloading {where}: {type(error).__name__}: {text}")
        failed.retryable = True
        raise failed from error
