"""The rest of the pages at work: tasks, pulling, settings, runs, the overview."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from llmos.abi.jobs import JobSpec
from llmos.sdk import Client
from tests.browser.conftest import Visitor
from tests.system.server import Server
from tests.system.test_faults import until


def test_a_task_runs_on_a_file_and_shows_what_it_found(me: Visitor, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review"])
        writer.writerows([[1, "I love this film"], [2, "This was terrible"], [3, "<b>Great</b>"]])
    me.go("/tasks")
    me.page.locator("input[type=file]").set_input_files(path)
    me.page.locator("span", has_text="reviews.csv").wait_for()  # the uploader has it, too
    me.page.get_by_label("Column").fill("review")
    me.page.get_by_role("button", name="Start").click()
    pane = me.page.get_by_role("complementary", name="Result")
    pane.get_by_text("Labels found").wait_for(timeout=60_000)
    pane.get_by_role("cell", name="positive").first.wait_for()
    assert pane.locator("b", has_text="Great").count() == 0
    with me.page.expect_download() as started:
        pane.get_by_role("link", name="csv").click()
    assert started.value.suggested_filename.endswith(".csv")
    assert "terrible" in Path(started.value.path()).read_text()


def test_a_task_without_input_is_refused(me: Visitor) -> None:
    me.go("/tasks").page.get_by_role("button", name="Start").click()
    me.page.locator(".q-notification", has_text="give a file").wait_for()


def test_a_pull_that_cannot_be_is_said_so(me: Visitor) -> None:
    me.go("/models").page.get_by_label("hf:org/name, or a known model").fill("file:/etc/passwd")
    me.page.get_by_role("button", name="Pull").click()
    me.page.locator(".q-notification", has_text="llmos pull file:PATH").wait_for()
    me.page.get_by_label("hf:org/name, or a known model").fill("openai:nothing")
    me.page.get_by_role("button", name="Pull").click()
    me.page.locator(".q-notification", has_text="openai").last.wait_for()


def test_a_model_that_was_pulled_is_there_and_loads(
    me: Visitor, server: Server, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(repository / "src" / "llmos" / "pilot", folder)
    me.go("/models")
    with Client(home=server.home) as client:
        client.models.pull(f"file:{folder}", "tiny")
    me.page.get_by_role("row").filter(has_text="tiny:1").get_by_role("button").click()
    pane = me.page.get_by_role("complementary")
    pane.get_by_role("button", name="Load").first.click()
    me.page.get_by_text("tiny:1 is loaded.").wait_for(timeout=60_000)
    pane.get_by_role("button", name="Unload").click()
    me.page.get_by_text("tiny:1 is being unloaded.").wait_for()
    with Client(home=server.home) as client:  # what runs in it ends first
        until(lambda: all(each.model != "tiny:1" for each in client.replicas()))
    pane.get_by_role("button", name="Remove").click()
    me.page.get_by_role("row").filter(has_text="tiny:1").wait_for(state="detached")


def test_settings_say_where_they_are_from(me: Visitor) -> None:
    me.go("/settings").page.get_by_role("button", name="Set", exact=True).click()
    row = me.page.get_by_role("row").filter(has_text="preload")
    row.get_by_text("flag").wait_for()
    assert "echo, pilot" in row.inner_text()
    assert me.page.get_by_role("row").filter(has_text="kernel.policy").count() == 0


def test_a_run_draws_its_curves_as_it_goes(me: Visitor, server: Server) -> None:
    steps = [
        {"do": "emit", "value": {"step": n, "loss": 2.0 / (n + 1), "split": "train"}}
        for n in range(20)
    ]
    with Client(home=server.home) as client:
        client.jobs.submit(JobSpec(program="drill", inputs={"steps": steps}, name="learns"))
    me.go("/training").page.get_by_role("heading", name="train loss").wait_for(timeout=60_000)
    me.page.locator(".charts .line").first.wait_for()


def test_the_overview_lives(me: Visitor) -> None:
    me.go("/overview").page.get_by_text("Nothing needs attention.").wait_for()
    body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 3000}]}
    with me.server.client() as client:
        client.post("/v1/chat/completions", json=body)
    me.page.wait_for_function("[...document.querySelectorAll('.chart .area')].length > 0")
    assert me.page.locator(".stack i").count() >= 3
    assert me.page.get_by_role("row").filter(has_text="pilot:1").count() == 1
