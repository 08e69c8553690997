"""Training as a job of the real server: one command, put off, killed, served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmos.cluster.proc import find_stat
from llmos.kernel.jobs.config import JobsConfig
from tests.contract.train.data import recipe, sentences, sentiment
from tests.system.server import Server
from tests.system.test_jobs import QUICK, Jobs, worker_pid

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("train") / "home"
    own = Server(home, *QUICK, "--set", "jobs.grace_s=20").start()
    try:
        yield own
        assert own.stop() == 0, own.log
    finally:
        own.kill()


@pytest.fixture
def jobs(server: Server) -> Iterator[Jobs]:
    with server.client() as client:
        yield Jobs(client)


def llmos(server: Server, *args: str, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llmos.cli.main", *args],
        env={**os.environ, "LLMOS_URL": server.url, "LLMOS_API_KEY": server.token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def send(jobs: Jobs, path: Path) -> str:
    with path.open("rb") as file:
        answer = jobs.http.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": (path.name, file)}
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def end(jobs: Jobs, job_id: str) -> dict[str, Any]:
    """Its record once it has ended; others may be at work on this machine."""
    for _ in range(5):
        answer = jobs.http.get(f"/os/v1/processes/{job_id}/wait", params={"timeout_s": 55})
        assert answer.status_code == 200, answer.text
        if answer.json()["info"]["ended_ns"] is not None:
            break
    return jobs.get(job_id)


def submit(jobs: Jobs, wanted: dict[str, Any], files: dict[str, Path]) -> str:
    ids = {name: send(jobs, path) for name, path in files.items()}
    body = {"program": "train", "inputs": {"recipe": wanted}, "files": ids}
    answer = jobs.http.post("/os/v1/jobs", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job"]["job_id"])


def test_one_command_makes_a_classifier_that_is_served(server: Server, tmp_path: Path) -> None:
    files = sentiment(tmp_path, 400)
    options = [part for split, path in files.items() for part in (f"--{split}", str(path))]
    sizes = [f"--set=model.{name}={value}" for name, value in recipe()["model"].items()]
    said = llmos(
        server,
        *("train", "--name", "mood", "-O", "classify", *options, *sizes),
        *("--epochs", "12", "--lr", "5e-3", "--set", "model.dropout=0"),
    )
    assert "validation: loss" in said
    assert "accuracy" in said
    assert "\nmood:1\n" in said, said
    with server.client() as client:
        shown = client.get("/os/v1/models/mood:1").json()
    assert "text-classification" in json.dumps(shown)
    told = llmos(server, "task", "classify", "-m", "mood", "--text", "lovely film", "--json")
    assert '"pos"' in told


WANTED = recipe(training={"epochs": 5}, watch={"checkpoint_s": 0.1})


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nobody disturbed."""
    with server.client() as client:
        jobs = Jobs(client)
        files = sentiment(tmp_path_factory.mktemp("whole"), 400)
        ended = end(jobs, submit(jobs, WANTED, files))
    assert ended["state"] == "succeeded", ended
    return ended


@pytest.mark.deep  # what always runs: tests/contract/train/test_exact.py, and its worker killed
def test_put_off_again_and_again_it_comes_to_the_same_weights(
    jobs: Jobs, whole: dict[str, Any], tmp_path: Path
) -> None:
    job_id = submit(jobs, WANTED, sentiment(tmp_path, 400))
    seen = 0
    for _ in range(2):
        seen = _step_after(jobs, job_id, seen)
        assert jobs.post(f"/os/v1/processes/{job_id}/suspend").status_code == 200
        assert jobs.post(f"/os/v1/processes/{job_id}/resume").status_code == 200
    again = end(jobs, job_id)
    assert again["state"] == "succeeded", again
    assert again["attempt"] >= 2
    assert again["outputs"]["weights"] == whole["outputs"]["weights"]


def test_its_worker_killed_it_goes_on_from_its_checkpoint(
    server: Server, jobs: Jobs, whole: dict[str, Any], tmp_path: Path
) -> None:
    job_id = submit(jobs, WANTED, sentiment(tmp_path, 400))
    _step_after(jobs, job_id, 40)
    os.kill(worker_pid(server), signal.SIGKILL)
    again = end(jobs, job_id)
    assert again["state"] == "succeeded", again
    assert again["num_deaths"] == 1
    assert again["outputs"]["weights"] == whole["outputs"]["weights"]


def _step_after(jobs: Jobs, job_id: str, step: int) -> int:
    """Returns when a step well after it was told of."""
    event = jobs.until(
        job_id, lambda e: e["kind"] == "metric" and e["value"].get("step", 0) > step + 20
    )
    return int(event["value"]["step"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"objective": "clasify"}, "recipe.objective"),
        ({"training": {"epoch": 3}}, "recipe.training"),
        ({"method": "lora"}, "recipe.method"),
    ],
)
def test_a_recipe_that_is_none_is_refused_at_once(
    jobs: Jobs, tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    ids = {"train": send(jobs, sentiment(tmp_path)["train"])}
    body = {"program": "train", "inputs": {"recipe": recipe(**fields)}, "files": ids}
    answer = jobs.http.post("/os/v1/jobs", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_what_cannot_fit_is_refused_with_what_would(jobs: Jobs, tmp_path: Path) -> None:
    ids = {"train": send(jobs, sentiment(tmp_path)["train"])}
    wanted = recipe(
        model={"hidden_size": 512, "num_heads": 8, "num_layers": 8, "max_length": 4096},
        training={"batch_size": 4096},
    )
    body = {"program": "train", "inputs": {"recipe": wanted}, "files": ids}
    answer = jobs.http.post("/os/v1/jobs", json=body)
    error = answer.json()["error"]
    assert error["code"] == "model_too_large", answer.text
    assert "it would fit with training.batch_size" in error["message"]


def test_runs_are_listed_shown_and_compared(server: Server, jobs: Jobs, tmp_path: Path) -> None:
    files = sentiment(tmp_path, 40)
    ids = [
        submit(jobs, recipe(name=f"run-{rate}", training={"learning_rate": rate}), files)
        for rate in (1e-3, 1e-2)
    ]
    for job_id in ids:
        assert end(jobs, job_id)["state"] == "succeeded"
    listed = llmos(server, "runs", "ls")
    assert "run-0.001" in listed
    assert "test: loss" in listed
    shown = llmos(server, "runs", "show", ids[0])
    assert "data.train.digest" in shown
    assert "versions.torch" in shown
    plot = tmp_path / "curves.svg"
    compared = llmos(server, "runs", "compare", *ids, "--plot", str(plot))
    assert "training.learning_rate" in compared
    assert "test.accuracy" in compared
    assert plot.read_text().count("<polyline") >= 6
    assert "must end in .svg" in llmos(
        server, "runs", "compare", *ids, "--plot", "x.gif", fails=True
    )


@pytest.mark.deep  # what always runs: pipelines in test_evaluate, heads and LoRA in contract tests
def test_an_encoder_is_made_probed_and_tuned_by_one_pipeline(
    server: Server, tmp_path: Path
) -> None:
    """That of `examples/`, with sizes that take seconds."""
    example = Path(__file__).parents[2] / "examples" / "pipelines" / "encoder.yaml"
    spec = yaml.safe_load(example.read_text("utf-8"))
    sentiment(tmp_path, 400)
    (tmp_path / "corpus.txt").write_text("\n".join(text for text, _ in sentences(600)), "utf-8")
    made = spec["steps"]["encoder"]["inputs"]["recipe"]
    made["model"] |= recipe()["model"] | {"max_length": 32}
    made["training"] |= {"steps": 10}
    for name in ("probe", "lora"):
        spec["steps"][name]["inputs"]["recipe"]["model"] = {"max_length": 32}
        spec["steps"][name]["inputs"]["recipe"]["training"] |= {"learning_rate": 2e-2}
    spec["steps"]["evaluate"]["inputs"]["eval"]["gate"] = {"bounds": {"accuracy": {"min": 0.1}}}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    said = llmos(server, "pipeline", "run", str(tmp_path / "pipeline.yaml"))
    assert "feelings:production is feelings:1" in said, said
    with server.client() as client:
        probe = client.get("/os/v1/models/probe:1").json()
    assert "text-classification" in json.dumps(probe)


def test_processes_of_a_run_are_its_workers_and_end_with_it(
    server: Server, jobs: Jobs, tmp_path: Path
) -> None:
    fields = {"training": {**WANTED["training"], "processes": 2, "epochs": 10}}
    job_id = submit(jobs, WANTED | fields, sentiment(tmp_path, 400))
    _step_after(jobs, job_id, 0)
    worker = worker_pid(server)
    (child,) = _children(worker)
    assert os.getpgid(child) == os.getpgid(worker)
    nicer = min(19, os.getpriority(os.PRIO_PROCESS, 0) + JobsConfig().compute_niceness)
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in (worker, child)] == [nicer, nicer]
    os.kill(worker, signal.SIGKILL)
    again = end(jobs, job_id)
    assert not is_alive(child)
    assert again["state"] == "succeeded", again
    assert again["num_deaths"] == 1
    assert again["outputs"]["metrics"]["test"]["accuracy"] > 0.8


def is_alive(pid: int) -> bool:
    stat = find_stat(pid)
    return stat is not None and stat.state != "Z"


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text("ascii").split())
    return found
