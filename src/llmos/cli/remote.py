"""Models that stay elsewhere, as people name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.abi.remote import RemoteSpec

SCHEME = "openai:"


def as_remote(source: str, key: str | None) -> tuple[str, RemoteSpec | None]:
    """The source, and what is known of a remote model: of `openai:URL#MODEL` that alone, of
    `openai:FILE.yaml` what the file says. Raises InvalidRequest, NotFound."""
    import msgspec

    from llmos.abi.remote import parse_remote
    from llmos.errors import InvalidRequest

    if not source.startswith(SCHEME):
        if key is not None:
            raise InvalidRequest("--key-env is for openai: sources", param="key_env")
        return source, None
    text = source.removeprefix(SCHEME)
    spec = parse_remote(text) if "#" in text else read_file(text)
    if key is not None:
        replace = msgspec.structs.replace
        spec = replace(spec, endpoints=[replace(one, key=key) for one in spec.endpoints])
    first = spec.endpoints[0]
    return f"{SCHEME}{first.url}#{first.model}", spec


def read_file(path: str) -> RemoteSpec:
    """A `RemoteSpec` as YAML or JSON. Raises InvalidRequest, NotFound."""
    from pathlib import Path

    from llmos.abi.remote import read_spec
    from llmos.errors import InvalidRequest, NotFound

    file = Path(path.removeprefix("//")).expanduser()
    if not file.is_file():
        raise NotFound(f"there is no {file}; expected openai:URL#MODEL or openai:FILE.yaml")
    return read_spec(_parse(file.read_text("utf-8"), InvalidRequest))


def _parse(text: str, refusal: type[Exception]) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise refusal(f"the file is no YAML: {str(error)[:200]}") from None
