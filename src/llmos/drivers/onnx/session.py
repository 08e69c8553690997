"""onnxruntime, behind one door: opened with bounds, its errors mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmos.drivers.catalog import say_missing
from llmos.errors import EngineFailed, LoadFailed, PluginError


class Session:
    """One loaded graph, on the CPU. `inputs` and `outputs` are names, in order."""

    def __init__(self, path: Path, num_threads: int) -> None:
        """Raises LoadFailed, and PluginError where onnxruntime is missing."""
        try:
            import onnxruntime as ort
        except ImportError:
            raise PluginError(say_missing("onnx", "onnxruntime")) from None
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            with mapped():
                self._session = ort.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
        except EngineFailed as error:
            raise LoadFailed(f"{path.name}: {error.message}") from None
        self.inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, as numpy arrays. Raises EngineFailed."""
        with mapped():
            made = self._session.run(self.outputs, dict(feeds))
        return dict(zip(self.outputs, made, strict=True))


@contextmanager
def mapped() -> Iterator[None]:
    """What onnxruntime raises (its classes share no root), as EngineFailed."""
    try:
        yield
    except Exception as error:
        raise EngineFailed(f"onnxruntime: {_said(error)}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
