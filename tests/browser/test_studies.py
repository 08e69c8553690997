"""Pulling, training and measuring in a browser: real ones, watched while they go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.abi.jobs import ENDED
from llmos.sdk import Client
from tests.browser.conftest import Visitor
from tests.contract.train.data import recipe, sentiment
from tests.system.server import Server
from tests.system.test_evaluate import REVIEWS
from tests.system.test_jobs import QUICK
from tests.unit.registry.hub_server import Hub, serve

REPO, WEIGHTS = "org/tiny", "model.safetensors"
PATIENCE_MS = 180_000
"""Training beside others on a small machine."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def hub(repository: Path) -> Iterator[Hub]:
    """The pilot's files as a repository of a hub."""
    with serve() as made:
        made.add(REPO, repository / "src" / "llmos" / "pilot")
        yield made
        made.release.set()


@pytest.fixture(scope="module")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Server]:
    """One that pulls from the hub above."""
    home = tmp_path_factory.mktemp("studies") / "home"
    running = Server(home, *QUICK, "--set", f"registry.hub_endpoint={hub.url}").start()
    try:
        yield running
        if running.is_started:
            assert running.stop() == 0, running.log
    finally:
        running.kill()


def test_a_pull_is_watched_from_the_hub_to_its_row(me: Visitor, hub: Hub) -> None:
    hub.faults.hang.add(WEIGHTS)
    hub.faults.hang_after = 100_000
    me.go("/models").page.get_by_label("hf:org/name, or a known model").fill(f"hf:{REPO}")
    me.page.get_by_role("button", name="Pull").click()
    assert hub.hanging.wait(60)
    status = me.page.locator(".progress[role=status]")
    status.filter(has_text="Downloading").filter(has_text=WEIGHTS).wait_for()
    assert me.page.get_by_role("button", name="Pull").is_disabled()
    hub.faults.hang.clear()  # the connection ends, and the pull goes on where it was
    hub.release.set()
    me.page.get_by_text("tiny:1 is here.").wait_for(timeout=60_000)
    row = me.page.get_by_role("row").filter(has_text="tiny:1")
    row.wait_for()
    row.get_by_role("button").click()
    assert REPO in me.page.get_by_role("complementary").inner_text()
    status.wait_for(state="hidden")


def test_a_training_run_is_watched_to_its_model(
    me: Visitor, server: Server, tmp_path: Path
) -> None:
    files = sentiment(tmp_path, 400)
    asked = recipe(
        name="moods",
        data={},
        training={"epochs": 12, "batch_size": 8},
        watch={"log_every": 1, "evaluate_every": 20},
    )
    me.go("/training")
    with Client(home=server.home) as client:
        job_id = client.runs.train(asked, **files).job.job_id
        heading = me.page.get_by_role("heading", name="loss", exact=True)
        heading.wait_for(timeout=PATIENCE_MS)
        line = me.page.locator(".charts .panel").filter(has=heading).locator("path.line")
        line.wait_for(timeout=PATIENCE_MS)
        early = line.get_attribute("d") or ""
        me.page.wait_for_function(
            "(n) => [...document.querySelectorAll('.charts path.line')]"
            ".some((p) => p.getAttribute('d').length > n)",
            arg=len(early) + 40,
            timeout=PATIENCE_MS,
        )
        row = me.page.get_by_role("row").filter(has_text="moods")
        row.get_by_text("succeeded").wait_for(timeout=PATIENCE_MS)
        me.page.get_by_role("heading", name="validation accuracy").wait_for()
        run = client.runs.show(job_id)
    assert run.job.state == "succeeded", run
    assert run.log.samples
    first, last = run.curves["loss"][0][1], run.curves["loss"][-1][1]
    assert last < first
    assert me.page.locator(".samples li").count() > 0
    me.go("/models").page.get_by_role("row").filter(has_text="moods:1").wait_for()


def test_an_evaluation_is_read(me: Visitor, server: Server, tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    data.write_text(REVIEWS, "utf-8")
    asked = {"kind": "classify", "model": "sentiment", "resamples": 200, "title": "reviews"}
    me.go("/evaluate")
    with Client(home=server.home) as client:
        job = client.evaluations.start(asked, data).job
        row = me.page.get_by_role("row").filter(has_text="reviews")
        row.get_by_text("succeeded").wait_for(timeout=PATIENCE_MS)
        assert client.jobs.wait(job.job_id).job.state in ENDED
        measured = client.evaluations.show(job.job_id)
    accuracy = measured.scores["accuracy"]
    assert accuracy is not None
    row.get_by_role("button").click()
    pane = me.page.get_by_role("complementary")
    pane.get_by_role("row").filter(has_text="accuracy").first.wait_for()
    assert f"{accuracy:.4g}" in pane.inner_text()
    matrix = pane.locator("table.matrix")
    matrix.wait_for()
    shown = [
        [int(cell) for cell in line.locator("td").all_inner_texts()]
        for line in matrix.locator("tbody tr").all()
    ]
    assert shown == measured.confusion
    assert pane.locator("svg[aria-label=ROC] path.line").count() > 0
    assert sum(map(sum, shown)) == 30
