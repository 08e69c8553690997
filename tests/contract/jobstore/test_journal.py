"""Progress, events, results, checkpoints, and the files that results become."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.jobs import JobProgress, JobState, NewEvent, ResultRow
from llmos.abi.program import RAW
from llmos.errors import InvalidRequest, NotFound, OffsetLost, StorageError
from llmos.storage.config import StorageConfig
from llmos.telemetry import faults
from llmos.worker.telling import MAX_EVENT_BYTES
from tests.contract.jobstore.world import NOW, World, checkpoint_ref, digests, job

Run = Callable[..., None]


def _lines(*numbers: int) -> list[NewEvent]:
    return [NewEvent(NOW + n, "log", {"text": f"行 {n} 🐼"}) for n in numbers]


def test_the_newest_progress_is_kept(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        for done in (1.0, 2.0):
            assert await w.store.progress(
                attempt, JobProgress(done, 10, "行", "reading", {"failed": 1}, NOW)
            )
        await w.restart()
        kept = await w.store.get(attempt.job_id)
        assert kept.progress == JobProgress(2.0, 10, "行", "reading", {"failed": 1}, NOW)

    run(scenario)


def test_events_are_numbered_without_gaps(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        assert await w.store.append(attempt, _lines(1, 2)) == 2
        assert await w.store.note(attempt.job_id, [NewEvent(NOW, "state", {"to": "x"})]) == 3
        assert await w.store.append(attempt, []) == 3
        await w.end(attempt)
        assert await w.store.append(attempt, _lines(4)) is None
        assert await w.store.note(attempt.job_id, _lines(4)) == 4
        assert await w.store.note("job_none", _lines(1)) is None
        found = await w.store.events(attempt.job_id)
        assert [each.number for each in found] == [1, 2, 3, 4]
        assert found[0].value == {"text": "行 1 🐼"} and found[0].job_id == attempt.job_id
        assert await w.store.events(attempt.job_id, after=2, limit=1) == found[2:3]
        states = await w.store.events(attempt.job_id, kinds=["state", "metric"])
        assert states == found[2:3]
        assert await w.store.events(attempt.job_id, after=4) == []

    run(scenario)


def test_too_many_events_lose_the_oldest_and_say_so(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        for n in range(1, 13, 3):
            await w.store.append(attempt, _lines(n, n + 1, n + 2))
        found = await w.store.events(attempt.job_id)
        assert [each.number for each in found] == [8, 9, 10, 11, 12]
        assert await w.store.events(attempt.job_id, after=7) == found
        for lost in (1, 6, 13, 10**9):
            with pytest.raises(OffsetLost) as caught:
                await w.store.events(attempt.job_id, after=lost)
            assert caught.value.details == {"oldest": 8, "newest": 12}
        assert await w.store.append(attempt, _lines(*range(13, 30))) == 29
        numbers = [each.number for each in await w.store.events(attempt.job_id)]
        assert numbers == [25, 26, 27, 28, 29]

    run(scenario, max_job_events=5)


def test_a_line_that_is_too_long_is_cut(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.append(attempt, [NewEvent(NOW, "log" * 99, {"text": "好" * 1000})])
        (event,) = await w.store.events(attempt.job_id)
        assert event.value["cut"].startswith('{"text":"好好') and event.value["size_bytes"] == 3011
        assert len(event.value["cut"].encode()) <= 100 and len(event.kind) == 96

    run(scenario, max_event_bytes=100)


def test_the_first_result_with_a_key_stays(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        rows = [ResultRow("output", "b", 2, b"two"), ResultRow("output", "a", 1, b"one")]
        assert await w.store.put_results(attempt, rows)
        assert await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"other")])
        assert await w.store.put_results(attempt, [ResultRow("error", "a", 0, b"e")])
        assert await w.store.put_results(attempt, [])
        keys = [("error", "a"), ("output", "a"), ("output", "b")]
        assert await w.store.result_keys(attempt.job_id) == keys
        ended = await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert ended is not None and ended.job.outputs is not None
        _, body = await w.read_file(ended.job.outputs["files"]["output"])
        assert body == b"one\ntwo\n"

    run(scenario)


def test_names_of_results_are_bounded(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        for row in (
            ResultRow("x" * 97, "k", 0, b""),
            ResultRow("output", "k" * 513, 0, b""),
            ResultRow("output", "a\0b", 0, b""),
        ):
            with pytest.raises(InvalidRequest):
                await w.store.put_results(attempt, [ResultRow("output", "fine", 0, b""), row])
        assert await w.store.result_keys(attempt.job_id) == []

    run(scenario)


def test_the_newest_checkpoint_is_kept_and_wanted(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        for number in (1, 2):
            assert await w.store.checkpoint(attempt, checkpoint_ref(number))
        await w.restart()
        await w.store.recover()
        (found,) = await w.store.claim(1, NOW)
        assert found.checkpoint == checkpoint_ref(2)
        assert await digests(w.store) == {checkpoint_ref(2).digest}
        again = await w.store.begin(found.job_id, NOW)
        assert again is not None
        await w.end(again)
        assert await digests(w.store) == set()

    run(scenario)


def test_ten_thousand_results_become_a_file_at_once(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running(None)
        rows = [
            ResultRow("output", f"行-{n}", n, b'{"n": %d, "text": "%s"}' % (n, b"x" * 200))
            for n in range(10_000)
        ]
        shuffled = rows[5000:] + rows[:5000]
        for start in range(0, 10_000, 1000):
            await w.store.put_results(attempt, shuffled[start : start + 1000])
        started_s = time.process_time()
        ended = await w.store.finish(
            attempt,
            JobState.SUCCEEDED,
            "done",
            outputs={"counts": {"completed": 10_000}},
            exports={"output": "结果.jsonl", "error": "errors.jsonl"},
        )
        took_s = time.process_time() - started_s
        assert took_s < 1.0, f"{took_s:.2f} s of processor time"
        assert ended is not None and ended.job.outputs is not None
        assert ended.job.outputs["counts"] == {"completed": 10_000}
        assert ended.job.outputs["files"]["error"] is None
        row, body = await w.read_file(ended.job.outputs["files"]["output"])
        assert body == b"".join(each.body + b"\n" for each in rows)
        assert (row["filename"], row["purpose"]) == ("结果.jsonl", "batch_output")
        assert (row["tenant_id"], row["principal_id"]) == ("ten_a", "prn_alice")
        assert row["size_bytes"] == len(body)
        assert await w.store.result_keys(attempt.job_id) == []
        assert row["digest"] in await digests(w.store)
        assert list(w.home.scratch.iterdir()) == []

    run(scenario)


def test_results_can_be_read_back_as_they_would_be_exported(run: Run, tmp_path: Path) -> None:
    async def scenario(w: World) -> None:
        old = await w.running(None)
        await w.store.put_results(old, [ResultRow("output", "b", 2, "二".encode())])
        await w.store.requeue(old, NOW, "again", died=True, error=None)
        (record,) = await w.store.claim(1, NOW)
        attempt = await w.store.begin(record.job_id, NOW)
        assert attempt is not None
        rows = [ResultRow("output", "a", 1, b"one\n"), ResultRow("other", "a", 0, b"x")]
        await w.store.put_results(attempt, rows)
        path = tmp_path / "gathered"
        for _ in range(2):  # the second time in place of what a full disk left
            assert await w.store.gather(attempt, "output", str(path))
            assert path.read_bytes() == "one\n二\n".encode()
        assert await w.store.gather(attempt, "nothing", str(path))
        assert path.read_bytes() == b""
        path.unlink()
        assert not await w.store.gather(old, "output", str(path))
        assert not path.exists()
        with pytest.raises(StorageError):
            await w.store.gather(attempt, "output", str(tmp_path / "no" / "folder"))

    run(scenario)


def test_pieces_of_a_file_are_joined_as_they_are(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running(None)
        pieces = [b"PAR1\x00", b"\xff\n", b"end"]
        stream = f"{RAW}parquet"
        await w.store.put_results(
            attempt, [ResultRow(stream, str(n), n, piece) for n, piece in enumerate(pieces)]
        )
        ended = await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={stream: "o"})
        assert ended is not None and ended.job.outputs is not None
        _, body = await w.read_file(ended.job.outputs["files"][stream])
        assert body == b"".join(pieces)

    run(scenario)


@pytest.mark.parametrize("kept_s", [None, 3600.0])
def test_files_of_results_are_kept_as_long_as_the_job_says(run: Run, kept_s: float | None) -> None:
    async def scenario(w: World) -> None:
        (record,) = await w.store.add([job(exports_expire_s=kept_s)])
        attempt = await w.running(record)
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x")])
        ended = await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert ended is not None and ended.job.outputs is not None
        row, _ = await w.read_file(ended.job.outputs["files"]["output"])
        wanted = None if kept_s is None else row["created_ns"] + int(kept_s * 1e9)
        assert row["expires_ns"] == wanted

    run(scenario)


def test_results_of_a_job_that_did_not_succeed_stay_for_a_retry(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x\n")])
        ended = await w.store.finish(attempt, JobState.CANCELLED, "", exports={"output": "o"})
        assert ended is not None and ended.job.outputs is not None
        assert (await w.read_file(ended.job.outputs["files"]["output"]))[1] == b"x\n"
        again = await w.running(await w.store.retry(attempt.job_id, "again"))
        assert await w.store.result_keys(attempt.job_id) == [("output", "a")]
        await w.store.put_results(again, [ResultRow("output", "b", 1, b"y")])
        ended = await w.store.finish(again, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert ended is not None and ended.job.outputs is not None
        assert (await w.read_file(ended.job.outputs["files"]["output"]))[1] == b"x\ny\n"

    run(scenario)


@pytest.mark.parametrize("point", ["jobs.export.sealed", "jobs.finish.exported"])
def test_an_export_that_fails_changes_nothing(run: Run, point: str) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x")])

        def fail(reached: str) -> None:
            if reached == point:
                raise OSError(5, "Input/output error")

        with faults.installed(fail), pytest.raises(StorageError):
            await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert (await w.store.get(attempt.job_id)).state is JobState.RUNNING
        assert await digests(w.store) == set()
        assert w.blobs.collect(set()) == 2  # the sealed blob, which nothing refers to
        ended = await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert ended is not None

    run(scenario)


def test_results_that_come_while_others_are_exported(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x")])
        inner = w.store._exporter.export
        late = [ResultRow("output", "b", 1, b"y")]

        def export(*args: object, **kwargs: object) -> object:
            made = inner(*args, **kwargs)  # type: ignore[arg-type]
            if late:
                w.put_now(attempt, [late.pop()])
            return made

        w.store._exporter.export = export  # type: ignore[method-assign, assignment]
        ended = await w.store.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
        assert ended is not None and ended.job.outputs is not None
        assert (await w.read_file(ended.job.outputs["files"]["output"]))[1] == b"x\ny\n"

    run(scenario)


def test_a_missing_job_has_no_events(run: Run) -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(NotFound):
            await w.store.events("job_none")
        (made,) = await w.store.add([job()])
        assert await w.store.events(made.job_id) == []
        with pytest.raises(OffsetLost):
            await w.store.events(made.job_id, after=1)

    run(scenario)


def test_no_event_that_a_program_may_emit_is_cut() -> None:
    assert StorageConfig().max_event_bytes >= MAX_EVENT_BYTES
