"""Every sink keeps what it is told, and is told once, also by the next server."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.jobs import JobEvent, JobFilter, JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal
from llmos.errors import ConfigError
from llmos.tracking.config import TrackingConfig
from llmos.tracking.opening import open_sink
from llmos.tracking.sink import Point, Run, Sink
from llmos.tracking.tracker import Tracker
from tests.conftest import missing

RUN = Run("job_0123456789abcdef0123456789abcdef", "tiny", 10**18, {"recipe.name": "tiny"})
POINTS = [Point(10**18 + i * 10**9, i, {"train/loss": 1.0 / i}) for i in (1, 2, 3)]


def mlflow_losses(folder: Path) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("llmos")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["recipe.name"] == "tiny"
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    return [(m.step, m.value) for m in history]


def tensorboard_losses(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = folder.iterdir()
    read = EventAccumulator(str(place))
    read.Reload()
    return [(e.step, e.value) for e in read.Scalars("train/loss")]


def wandb_losses(folder: Path) -> list[tuple[int, float]]:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    found = []
    for data in leveldb_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {(i.key or ".".join(i.nested_key)): i.value_json for i in record.history.item}
            found.append((int(items["at_step"]), float(items["train/loss"])))
    return found


def leveldb_records(data: bytes) -> list[bytes]:
    """Of W&B's files: LevelDB's log format behind seven bytes."""
    records, parts, at, block = [], b"", 7, 32768
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(parts)
            parts = b""
    return records


READERS: dict[str, Callable[[Path], list[tuple[int, float]]]] = {
    "mlflow": mlflow_losses,
    "tensorboard": tensorboard_losses,
    "wandb": wandb_losses,
}


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", READERS)
def test_what_is_told_is_kept(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        missing(f"needs pip install 'llmos[{name}]'")
    sink = open_sink(name, tmp_path)
    sink.begin(RUN)
    sink.tell(RUN, POINTS[:2])
    sink.begin(RUN) if name == "mlflow" else None
    sink.tell(RUN, POINTS[2:])
    sink.end(RUN, "succeeded")
    sink.close()
    expected = [(p.step, pytest.approx(p.values["train/loss"])) for p in POINTS]
    assert READERS[name](tmp_path) == expected


def test_a_sink_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of mlflow"):
        open_sink("aim", tmp_path)


class Store:
    """Of one job, as far as a tracker asks."""

    def __init__(self) -> None:
        spec = JobSpec("train", {"recipe": {"name": "tiny"}}, name="tiny")
        owner = Principal("p", "t", "admin")
        self.job = JobRecord(RUN.run_id, owner, spec, JobState.RUNNING, 2**62, 1)
        self.log: list[JobEvent] = []

    def add(self, step: int) -> None:
        number = len(self.log) + 1
        value = {"step": step, "loss": 1.0 / step, "text": "no number", "grad": float("nan")}
        self.log.append(JobEvent(RUN.run_id, number, 10**18, "metric", value))

    async def page(self, query: JobFilter) -> list[JobRecord]:
        assert query.programs == ["train", "evaluate"]
        return [self.job]

    async def events(
        self, job_id: str, after: int, limit: int, kinds: Sequence[str]
    ) -> list[JobEvent]:
        return self.log[after : after + limit]


class Heard:
    """A sink that keeps what it hears, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.heard: list[Any] = []

    def begin(self, run: Run) -> None:
        self._hear("begin")

    def tell(self, run: Run, points: list[Point]) -> None:
        self._hear(*((p.step, dict(p.values)) for p in points))

    def end(self, run: Run, state: str) -> None:
        self._hear(state)

    def close(self) -> None:
        self._hear("close")

    def _hear(self, *what: Any) -> None:
        if self.fails:
            raise RuntimeError("a sink's own trouble")
        self.heard += what


def test_a_run_is_told_once_and_by_the_next_server_from_there(tmp_path: Path) -> None:
    store: Any = Store()
    first, broken = Heard(), Heard(fails=True)
    config = TrackingConfig(sinks=["tensorboard"])
    sinks: dict[str, Sink] = {"broken": broken, "heard": first}

    async def go() -> list[Any]:
        tracker = Tracker(store, tmp_path, sinks, config)
        store.add(1)
        await tracker.look()
        await tracker.look()
        store.add(2)
        await tracker.look()
        later = Heard()
        again = Tracker(store, tmp_path, {"heard": later}, config)
        store.add(4)
        store.job = JobRecord(
            store.job.job_id, store.job.principal, store.job.spec, JobState.SUCCEEDED, 2**62, 1
        )
        await again.look()
        await again.look()
        return later.heard

    later = asyncio.run(go())
    assert first.heard == ["begin", (1, {"train/loss": 1.0}), (2, {"train/loss": 0.5})]
    assert later == ["begin", (4, {"train/loss": 0.25}), "succeeded"]
