"""TensorBoard's event files: `tensorboard --logdir .../tensorboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from llmos.tracking.sink import Point, Run


class TensorboardSink:
    """Behind `sink.Sink`. A folder for each run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def begin(self, run: Run) -> None:
        """Another file in its folder for every start of ours."""
        place = self._folder / f"{run.name or 'run'}-{run.run_id[-8:]}".replace("/", "_")
        self._writers[run.run_id] = EventFileWriter(str(place))

    def tell(self, run: Run, points: list[Point]) -> None:
        """On disk when it returns."""
        writer = self._writers[run.run_id]
        for point in points:
            values = [Summary.Value(tag=n, simple_value=v) for n, v in point.values.items()]
            event = Event(
                wall_time=point.at_ns / 1e9, step=point.step, summary=Summary(value=values)
            )
            writer.add_event(event)
        writer.flush()

    def end(self, run: Run, state: str) -> None:
        """Its files are closed."""
        self._writers.pop(run.run_id).close()

    def close(self) -> None:
        """All of them."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
