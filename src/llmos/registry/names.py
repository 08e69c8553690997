"""Names, references and sources as people write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from llmos.abi.remote import RemoteSpec, parse_remote
from llmos.errors import InvalidRequest
from llmos.storage.names import is_plain

_NAME = re.compile(r"[a-z0-9][a-z0-9._\-]{0,95}(/[a-z0-9][a-z0-9._\-]{0,95})?")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._\-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/\-]{0,199}")
_GGUF = ".gguf"
LATEST = "latest"
_ALIAS = re.compile(r"[a-z][a-z0-9._\-]{0,62}")


class HubSource(msgspec.Struct, frozen=True):
    """`hf:org/name[/FILE.gguf][@revision]`: of a repository with several GGUF files, one."""

    repo: str
    revision: str | None
    file: str = ""

    @property
    def default_name(self) -> str:
        return _without_suffix(self.file) or self.repo.rsplit("/", 1)[-1]


class FolderSource(msgspec.Struct, frozen=True):
    """`file:/absolute/path`: a folder of this machine, or one GGUF file."""

    folder: str

    @property
    def default_name(self) -> str:
        name = _without_suffix(Path(self.folder).name.lower())
        return re.sub(r"[^a-z0-9._\-]+", "-", name).strip("-._")


class UploadSource(msgspec.Struct, frozen=True):
    """`upload:ID`."""

    upload_id: str

    @property
    def default_name(self) -> str:
        return ""


class RemoteSource(msgspec.Struct, frozen=True):
    """`openai:https://host/v1#model`: a model that stays where it is."""

    spec: RemoteSpec

    @property
    def default_name(self) -> str:
        """Of the model, as it is called there."""
        model = self.spec.endpoints[0].model.lower().rpartition(":")[0]
        model = model or self.spec.endpoints[0].model.lower()
        parts = [re.sub(r"[^a-z0-9._\-]+", "-", part).strip("-._") for part in model.split("/")]
        return "/".join([part for part in parts if part][-2:])

    @property
    def written(self) -> str:
        """The source as people read it."""
        first = self.spec.endpoints[0]
        return f"openai:{first.url}#{first.model}"


def _without_suffix(file: str) -> str:
    return file[: -len(_GGUF)] if file.lower().endswith(_GGUF) else file


Source = HubSource | FolderSource | UploadSource | RemoteSource


def normalise_name(name: str) -> str:
    """Lower case, checked: `[a-z0-9][a-z0-9._-]*`, optionally `org/name`. Raises InvalidRequest."""
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        raise InvalidRequest(
            f"bad model name {name[:80]!r}: letters, digits and ._- , beginning with a letter or "
            "digit, optionally after an organisation and /",
            param="name",
        )
    return lowered


def normalise_alias(alias: str) -> str:
    """Lower case, checked: it begins with a letter, so that it is no number. Raises
    InvalidRequest."""
    lowered = alias.lower()
    if not _ALIAS.fullmatch(lowered) or lowered == LATEST:
        text = f"bad alias {alias[:80]!r}: a letter, then letters, digits and ._-, not {LATEST!r}"
        raise InvalidRequest(text, param="alias")
    return lowered


def parse_source(source: str) -> Source:
    """Raises InvalidRequest naming the forms there are."""
    scheme, _, rest = source.partition(":")
    if scheme == "hf":
        repo, at, revision = rest.partition("@")
        file = ""
        if repo.lower().endswith(_GGUF) and repo.count("/") == 2:
            repo, _, file = repo.rpartition("/")
            if not is_plain(file) or file.startswith("."):
                raise InvalidRequest(f"bad file {file[:100]!r}", param="source")
        if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
            raise InvalidRequest(f"bad repository {repo[:100]!r}", param="source")
        if at and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise InvalidRequest(f"bad revision {revision[:100]!r}", param="source")
        return HubSource(repo, revision or None, file)
    if scheme == "file":
        if not rest.startswith("/") or not is_plain(rest):
            raise InvalidRequest("file: wants an absolute path", param="source")
        return FolderSource(rest)
    if scheme == "upload" and rest:
        return UploadSource(rest)
    if scheme == "openai":
        return RemoteSource(parse_remote(rest))
    raise InvalidRequest(
        f"bad source {source[:100]!r}: expected hf:org/name[/FILE.gguf][@revision], "
        "file:/absolute/path, upload:ID or openai:URL#MODEL",
        param="source",
    )


def near_matches(ref: str, known: Iterable[str]) -> list[str]:
    """At most three known names like `ref`, best first."""
    name = ref.lower().partition(":")[0]
    names = sorted(set(known))
    close = difflib.get_close_matches(name[:200], names, n=3, cutoff=0.5)
    part = name.rsplit("/", 1)[-1]
    close += [n for n in names if len(part) > 2 and (part in n or n in name) and n not in close]
    return close[:3]
