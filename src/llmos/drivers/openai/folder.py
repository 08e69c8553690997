"""The folder of a remote model: one small file."""

from __future__ import annotations

import json
from pathlib import Path

from llmos.abi.remote import REMOTE_FILE, RemoteSpec, read_spec
from llmos.errors import InvalidRequest, LoadFailed

MAX_FILE_BYTES = 1 << 20


def read_folder(folder: Path) -> RemoteSpec:
    """Raises LoadFailed."""
    path = folder / REMOTE_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise LoadFailed(f"{REMOTE_FILE}: over {MAX_FILE_BYTES} bytes")
        return read_spec(json.loads(raw))
    except OSError as error:
        raise LoadFailed(f"{REMOTE_FILE}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise LoadFailed(f"{REMOTE_FILE}: is no JSON") from None
    except InvalidRequest as error:
        raise LoadFailed(f"{REMOTE_FILE}: {error.message}") from None
