from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from llmos.abi.registry import ModelVersion, PullOptions, PullProgress
from llmos.errors import (
    DigestMismatch,
    DiskFull,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    ModelRejected,
    PermissionDenied,
    StorageError,
)
from tests.unit.adapter_folder import make_adapter, make_bare
from tests.unit.model_folder import make_model, make_sharded
from tests.unit.registry.conftest import MakeWorld, World
from tests.unit.registry.hub_server import COMMIT, Faults, Hub

WEIGHTS = "model.safetensors"


def _pull(
    world: MakeWorld, hub: Hub, source: str = "hf:org/Tiny", **config: object
) -> tuple[ModelVersion, list[PullProgress]]:
    async def main() -> tuple[ModelVersion, list[PullProgress]]:
        told: list[PullProgress] = []
        async with world(hub_endpoint=hub.url, **config) as w:
            version = await w.registry.pull(source, None, told.append)
            assert set(w.trace()) <= {"models", "blobs"}
            return version, told

    return asyncio.run(main())


def _refused(world: MakeWorld, hub: Hub, error: type[LLMOSError], match: str) -> None:
    async def main() -> None:
        async with world(hub_endpoint=hub.url) as w:
            with pytest.raises(error, match=match):
                await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            assert w.trace() == {}
            assert w.registry.list() == []

    asyncio.run(main())


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> Hub:
    folder = make_model(tmp_path / "source")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n模型\n")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    hub.add("org/Tiny", folder)
    return hub


def test_a_pull_brings_what_a_model_needs(world: MakeWorld, tiny: Hub) -> None:
    version, told = _pull(world, tiny)
    assert version.ref == "tiny:1"
    assert version.license == "mit"
    assert version.source == "hf:org/Tiny"
    names = {p.name for p in Path(version.folder).iterdir()}
    assert names == {"config.json", "tokenizer.json", "README.md", WEIGHTS}
    phases = list(dict.fromkeys(p.phase for p in told))
    assert phases == ["check", "download", "hash", "register"]
    downloads = [p for p in told if p.phase == "download"]
    assert [p.done_bytes for p in downloads] == sorted(p.done_bytes for p in downloads)
    assert downloads[-1].done_bytes == downloads[-1].total_bytes == version.size_bytes


def test_the_commit_is_fixed_at_the_start(world: MakeWorld, tiny: Hub) -> None:
    _pull(world, tiny, "hf:org/Tiny@v1.0")
    assert tiny.count("GET", "/api/models/org/Tiny/revision/v1.0") == 1
    assert tiny.count("HEAD", "/resolve/") == tiny.count("HEAD", f"/resolve/{COMMIT}/")
    assert tiny.count("GET", "evil") == tiny.count("GET", "pytorch_model") == 0


def test_nothing_is_told_or_asked_beyond_the_pull(world: MakeWorld, tiny: Hub) -> None:
    _pull(world, tiny)
    assert {path.split("/")[1] for _, path, _ in tiny.requests} == {"api", "org", "cdn"}
    assert tiny.count("GET", "/api/") == 1
    assert not any("torch/" in h.get("user-agent", "") for _, _, h in tiny.requests)


def test_shards_come_by_their_index(world: MakeWorld, hub: Hub, tmp_path: Path) -> None:
    folder = make_sharded(tmp_path / "source")
    (folder / "consolidated.safetensors").write_bytes(b"not wanted")
    hub.add("org/Tiny", folder)
    version, _ = _pull(world, hub)
    assert version.num_parameters == 48
    assert not (Path(version.folder) / "consolidated.safetensors").exists()


def test_a_cut_download_is_resumed(
    world: MakeWorld, tiny: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 8)
    tiny.faults.cut_once.add(WEIGHTS)
    version, _ = _pull(world, tiny)
    assert version.ref == "tiny:1"
    ranges = [h.get("Range") for m, p, h in tiny.requests if m == "GET" and p.startswith("/cdn/")]
    assert ranges == [None, "bytes=8-"]


def _ranges(hub: Hub) -> list[str | None]:
    return [h.get("Range") for m, p, h in hub.requests if m == "GET" and p.startswith("/cdn/")]


def _until_begun(part: Path) -> None:
    pause = threading.Event()
    while part.stat().st_size < 8:
        pause.wait(0.001)


def _give_up_in_the_middle(world: MakeWorld, hub: Hub) -> None:
    """The pull's client leaves after 10 bytes of the weights; the server then ends."""

    async def main() -> None:
        async with world(hub_endpoint=hub.url) as w:
            pull = asyncio.create_task(w.registry.pull("hf:org/Tiny", None, lambda _: None))
            await asyncio.to_thread(hub.hanging.wait, 30)
            (part,) = [p for p in w.home.pulls.rglob("*") if p.is_file()]
            await asyncio.to_thread(_until_begun, part)
            pull.cancel()
            hub.release.set()
            await asyncio.wait([pull])
            assert w.trace() == {}

    hub.faults.hang.add(WEIGHTS)
    asyncio.run(main())
    hub.faults.hang.clear()
    hub.requests.clear()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 8)

    class Unbuffered:
        """Every byte is in the file at once, as after a large piece."""

        def __call__(self, path: Path, mode: str) -> object:
            return path.open(mode, buffering=0)

    monkeypatch.setattr("llmos.registry.hub.open_part", Unbuffered())


@pytest.mark.usefixtures("small_pieces")
def test_a_pull_that_was_given_up_goes_on_after_a_restart(world: MakeWorld, tiny: Hub) -> None:
    _give_up_in_the_middle(world, tiny)
    version, told = _pull(world, tiny)
    assert version.ref == "tiny:1"
    assert _ranges(tiny) == ["bytes=8-"]
    downloads = [p for p in told if p.phase == "download"]
    assert downloads[-1].done_bytes == downloads[-1].total_bytes == version.size_bytes

    async def main() -> None:
        async with world() as w:
            assert not list(w.home.pulls.iterdir())

    asyncio.run(main())


@pytest.mark.usefixtures("small_pieces")
def test_a_hub_without_ranges_sends_all_of_it_again(world: MakeWorld, tiny: Hub) -> None:
    _give_up_in_the_middle(world, tiny)
    tiny.faults.no_ranges = True
    assert _pull(world, tiny)[0].ref == "tiny:1"


@pytest.mark.usefixtures("small_pieces")
def test_a_part_that_was_damaged_is_not_gone_on_from_twice(world: MakeWorld, tiny: Hub) -> None:
    _give_up_in_the_middle(world, tiny)

    async def damage() -> None:
        async with world() as w:
            (part,) = [p for p in w.home.pulls.rglob("*") if p.is_file()]
            part.write_bytes(b"\0" * part.stat().st_size)

    asyncio.run(damage())
    _refused(world, tiny, DigestMismatch, "was promised")
    tiny.requests.clear()
    assert _pull(world, tiny)[0].ref == "tiny:1"
    assert _ranges(tiny) == [None]


@pytest.mark.usefixtures("small_pieces")
def test_parts_that_nobody_comes_back_for_go(world: MakeWorld, tiny: Hub) -> None:
    _give_up_in_the_middle(world, tiny)

    async def main() -> None:
        async with world() as w:
            assert len(list(w.home.pulls.iterdir())) == 1
        async with world(keep_partial_s=0) as w:
            assert not list(w.home.pulls.iterdir())

    asyncio.run(main())


@pytest.mark.usefixtures("small_pieces")
def test_another_commit_is_begun_anew(
    world: MakeWorld, tiny: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give_up_in_the_middle(world, tiny)
    monkeypatch.setattr("tests.unit.registry.hub_server.COMMIT", "b" * 40)
    assert _pull(world, tiny)[0].ref == "tiny:1"
    assert _ranges(tiny) == [None]


def test_two_pulls_of_one_commit_do_not_share_parts(world: MakeWorld, tiny: Hub) -> None:
    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            pulls = (w.registry.pull("hf:org/Tiny", name, lambda _: None) for name in "ab")
            first, second = await asyncio.gather(*pulls)
            assert first.digest == second.digest
            assert not list(w.home.pulls.iterdir())

    asyncio.run(main())


def test_another_host_never_sees_the_token(world: MakeWorld, tiny: Hub) -> None:
    _pull(world, tiny, hub_token="hf_configured")
    on_cdn = [h for _, p, h in tiny.requests if p.startswith("/cdn/")]
    assert on_cdn
    assert not any("authorization" in {k.lower() for k in h} for h in on_cdn)


def test_the_token_goes_out_only_if_configured(
    world: MakeWorld, tiny: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_from_the_environment")
    _pull(world, tiny)
    assert not any("authorization" in {k.lower() for k in h} for _, _, h in tiny.requests)
    tiny.requests.clear()
    _pull(world, tiny, "hf:org/Tiny@main", hub_token="hf_configured")
    assert any(h.get("authorization") == "Bearer hf_configured" for _, _, h in tiny.requests)


BROKEN: dict[str, tuple[Faults, type[LLMOSError], str]] = {
    "wrong digest": (Faults(corrupt={WEIGHTS}), DigestMismatch, "was promised"),
    "wrong small file": (Faults(corrupt={"config.json"}), DigestMismatch, r"config\.json"),
    "listed, not there": (Faults(missing={WEIGHTS}), ModelRejected, "does not have"),
    "private": (Faults(info_status=401, error_code="RepoNotFound"), ModelNotFound, "no repos"),
    "gated": (Faults(info_status=403, error_code="GatedRepo"), PermissionDenied, "gated"),
    "down": (Faults(info_status=500), StorageError, "500"),
    "not a hub": (Faults(garbage_info=True), StorageError, "downloading"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_failed_pull_leaves_nothing(name: str, world: MakeWorld, tiny: Hub) -> None:
    faults, error, match = BROKEN[name]
    tiny.faults = faults
    _refused(world, tiny, error, match)


def test_signed_addresses_are_not_shown(world: MakeWorld, tiny: Hub) -> None:
    tiny.faults.signed.add(WEIGHTS)

    async def main() -> str:
        async with world(hub_endpoint=tiny.url) as w:
            with pytest.raises(LLMOSError) as caught:
                await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            return caught.value.message

    message = asyncio.run(main())
    assert tiny.count("GET", "/gone") == 1
    assert "s3cret" not in message


def test_unknown_repository_and_revision(world: MakeWorld, tiny: Hub) -> None:
    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            for source in ("hf:org/nothing", "hf:org/Tiny@nothing"):
                with pytest.raises(ModelNotFound, match="the hub has no"):
                    await w.registry.pull(source, None, lambda _: None)

    asyncio.run(main())


def test_nobody_listens(world: MakeWorld) -> None:
    async def main() -> None:
        async with world(hub_endpoint="http://127.0.0.1:9", hub_timeout_s=1) as w:
            with pytest.raises(StorageError, match="downloading") as caught:
                await w.registry.pull("hf:org/x", None, lambda _: None)
            assert caught.value.retryable

    asyncio.run(main())


def test_files_that_would_leave_the_folder(world: MakeWorld, tiny: Hub) -> None:
    tiny.repos["org/Tiny"]["additional_chat_templates/\0.jinja"] = b"x"
    _refused(world, tiny, ModelRejected, "bad file name")
    assert tiny.count("GET", "/resolve/") == 0


def test_pickles_only(world: MakeWorld, tiny: Hub) -> None:
    del tiny.repos["org/Tiny"][WEIGHTS]
    _refused(world, tiny, ModelRejected, r"pytorch_model\.bin: a pickle")
    assert tiny.count("GET", "/resolve/") == 0


def test_the_index_names_what_is_not_there(world: MakeWorld, hub: Hub, tmp_path: Path) -> None:
    folder = make_sharded(tmp_path / "source")
    (folder / "model-00002-of-00002.safetensors").unlink()
    hub.add("org/Tiny", folder)
    _refused(world, hub, ModelRejected, r"model-00002-of-00002\.safetensors: missing")


def test_what_no_driver_serves(world: MakeWorld, tiny: Hub) -> None:
    config = json.loads(tiny.repos["org/Tiny"]["config.json"])
    config["architectures"] = ["T5ForConditionalGeneration"]
    tiny.repos["org/Tiny"]["config.json"] = json.dumps(config).encode()
    _refused(world, tiny, ModelRejected, "no driver serves T5")


def test_limits(world: MakeWorld, tiny: Hub) -> None:
    async def attempt(error: type[LLMOSError], **config: int) -> None:
        async with world(hub_endpoint=tiny.url, **config) as w:
            with pytest.raises(error):
                await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            assert w.trace() == {}

    asyncio.run(attempt(ModelRejected, max_model_bytes=100))
    asyncio.run(attempt(ModelRejected, max_model_files=2))
    asyncio.run(attempt(DiskFull, min_free_bytes=1 << 62))


async def _hanging(w: World, hub: Hub) -> asyncio.Task[ModelVersion]:
    task = asyncio.create_task(w.registry.pull("hf:org/Tiny", None, lambda _: None))
    assert await asyncio.to_thread(hub.hanging.wait, 10)
    return task


def test_a_cancelled_pull_leaves_nothing(world: MakeWorld, tiny: Hub) -> None:
    tiny.faults.hang.add(WEIGHTS)

    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            task = await _hanging(w, tiny)
            assert w.registry.list() == []
            assert "scratch" in w.trace()
            task.cancel()
            tiny.faults.hang.clear()
            tiny.release.set()
            await asyncio.wait([task])
            assert task.cancelled()
            assert w.trace() == {}
            version = await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            assert version.ref == "tiny:1"

    asyncio.run(main())


def test_equal_pulls_are_one(world: MakeWorld, tiny: Hub) -> None:
    tiny.faults.hang.add(WEIGHTS)

    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            first = await _hanging(w, tiny)
            told: list[PullProgress] = []
            second = asyncio.create_task(w.registry.pull("hf:org/Tiny", "TINY", told.append))
            await asyncio.sleep(0)
            first.cancel()  # one watcher leaves; the pull goes on for the other
            tiny.faults.hang.clear()
            tiny.release.set()
            assert (await second).ref == "tiny:1"
            assert told
            await asyncio.wait([first])
            assert first.cancelled()
        assert tiny.count("GET", "/api/models/") == 1

    asyncio.run(main())


def test_a_stalled_pull_is_given_up(world: MakeWorld, tiny: Hub) -> None:
    tiny.faults.hang.add(WEIGHTS)

    async def main() -> None:
        async with world(hub_endpoint=tiny.url, stall_timeout_s=0.3) as w:
            task = await _hanging(w, tiny)
            await asyncio.wait([task], timeout=0.35)
            tiny.release.set()
            with pytest.raises(StorageError, match=r"moved no byte for 0\.3 s"):
                await task
            assert w.registry.list() == []

    asyncio.run(main())


def test_closing_gives_up_what_is_under_way(world: MakeWorld, tiny: Hub) -> None:
    tiny.faults.hang.add(WEIGHTS)

    async def main() -> asyncio.Task[ModelVersion]:
        async with world(hub_endpoint=tiny.url) as w:
            task = await _hanging(w, tiny)
            tiny.release.set()
        await asyncio.wait([task])
        return task

    task = asyncio.run(main())
    assert isinstance(task.exception(), LLMOSError)


def test_an_adapter_alone_is_laid_over_a_model_that_is_here(
    world: MakeWorld, tiny: Hub, tmp_path: Path
) -> None:
    tiny.add("org/lora", make_bare(tmp_path / "lora"))

    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            with pytest.raises(InvalidRequest, match="say which version here it is of"):
                await w.registry.pull("hf:org/lora", None, lambda _: None)
            assert w.trace() == {}
            base = await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            options = PullOptions(base="tiny")
            found = await w.registry.pull("hf:org/lora", None, lambda _: None, options)
            assert found.adapter is not None
            assert (found.adapter.base, found.license) == (base.ref, "mit")

    asyncio.run(main())


@pytest.mark.parametrize("with_base", [False, True])
def test_one_of_ours_comes_without_its_bases_weights(
    world: MakeWorld,
    tiny: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_base: bool,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 8)
    base = tmp_path / "source"
    folder = make_adapter(tmp_path / "ours", base)
    if with_base:
        (folder / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes())
    tiny.add("org/ours", folder)
    name = "adapter/adapter_model.safetensors"
    tiny.faults.cut_once.add(name)

    async def main() -> None:
        async with world(hub_endpoint=tiny.url) as w:
            await w.registry.pull("hf:org/Tiny", None, lambda _: None)
            tiny.requests.clear()
            found = await w.registry.pull("hf:org/ours", None, lambda _: None)
            assert found.adapter is not None
            assert found.adapter.base == "tiny:1"

    asyncio.run(main())
    assert _ranges(tiny) == [None, "bytes=8-"]


def test_a_pickled_adapter_is_refused_by_name(world: MakeWorld, tiny: Hub, tmp_path: Path) -> None:
    folder = make_bare(tmp_path / "lora")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    tiny.add("org/Tiny", folder)
    _refused(world, tiny, ModelRejected, r"adapter_model\.bin: a pickle can run code")
    ours = make_adapter(tmp_path / "ours", tmp_path / "source") / "adapter"
    (ours / "adapter_model.safetensors").rename(ours / "adapter_model.bin")
    tiny.add("org/Tiny", ours.parent)
    _refused(world, tiny, ModelRejected, r"adapter/adapter_model\.bin: a pickle can run code")
