"""MLflow's tracking over SQLite: `mlflow ui --backend-store-uri sqlite:///.../mlflow.db`."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from llmos.tracking.sink import Point, Run

EXPERIMENT = "llmos"
TAG = "llmos.run"
MAX_BATCH = 1000
"""Metrics in a call, as MLflow allows."""

MAX_PARAM_CHARS = 6000
MAX_PARAMS = 100
ENDS = {"succeeded": "FINISHED", "cancelled": "KILLED"}


class MlflowSink:
    """Behind `sink.Sink`. Runs are found by a tag with their id."""

    def __init__(self, folder: Path) -> None:
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        artifacts = (folder / "artifacts").as_uri()
        self._experiment: str = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        )
        self._ids: dict[str, str] = {}

    def begin(self, run: Run) -> None:
        """With its configuration as parameters."""
        found = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`{TAG}` = '{run.run_id}'", max_results=1
        )
        if found:
            self._ids[run.run_id] = found[0].info.run_id
            return
        made = self._client.create_run(
            self._experiment,
            start_time=run.created_ns // 1_000_000,
            run_name=run.name,
            tags={TAG: run.run_id},
        )
        self._ids[run.run_id] = made.info.run_id
        params = [Param(k, str(v)[:MAX_PARAM_CHARS]) for k, v in run.config.items()]
        for at in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(made.info.run_id, params=params[at : at + MAX_PARAMS])

    def tell(self, run: Run, points: list[Point]) -> None:
        """Many numbers in a call."""
        metrics = [
            Metric(name, value, point.at_ns // 1_000_000, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for at in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(self._ids[run.run_id], metrics=metrics[at : at + MAX_BATCH])

    def end(self, run: Run, state: str) -> None:
        """With how it ended."""
        run_id = self._ids.pop(run.run_id)
        self._client.log_batch(run_id, tags=[RunTag("llmos.state", state)])
        self._client.set_terminated(run_id, ENDS.get(state, "FAILED"))

    def close(self) -> None:
        """Nothing is open between calls."""
