from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmos.abi.registry import ModelVersion
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    ModelRejected,
    NotFound,
    QueueFull,
    StorageError,
)
from llmos.registry.registry import Builtin
from tests.unit.model_folder import make_model
from tests.unit.registry.conftest import MakeWorld, World


async def _pull(w: World, folder: Path, name: str | None = None) -> ModelVersion:
    return await w.registry.pull(f"file:{folder}", name, lambda _: None)


def test_the_real_model(world: MakeWorld, test_data: Path) -> None:
    source = test_data / "models" / "stories260k"

    async def main() -> None:
        async with world() as w:
            version = await _pull(w, source)
            assert version.ref == "stories260k:1"
            assert version.num_parameters == 260_032
            assert version.aliases == ["latest"]
            folder = Path(version.folder)
            for path in source.iterdir():
                assert (folder / path.name).read_bytes() == path.read_bytes()

    asyncio.run(main())


def test_versions_and_references(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            one = await _pull(w, make_model(tmp_path / "Tiny"))
            same = await _pull(w, make_model(tmp_path / "copy"), "TINY")
            assert same is w.registry.resolve("tiny")
            assert same.model_id == one.model_id
            two = await _pull(w, make_model(tmp_path / "Tiny", fill=1))
            assert [v.ref for v in w.registry.list()] == ["tiny:1", "tiny:2"]
            assert w.registry.resolve("tiny") == w.registry.resolve("tiny:latest") == two
            assert w.registry.resolve("Tiny:1").model_id == one.model_id
            assert (w.registry.resolve("tiny:1").aliases, two.aliases) == ([], ["latest"])
            other = await _pull(w, make_model(tmp_path / "Tiny"), "org/other")
            assert other.ref == "org/other:1"
            assert other.digest == one.digest
        async with world() as w:
            assert w.registry.resolve("tiny") == two
            assert len(w.registry.list()) == 3

    asyncio.run(main())


def test_unknown_models_name_near_ones(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "stories260k"))
            with pytest.raises(ModelNotFound, match="did you mean 'stories260k'") as caught:
                w.registry.resolve("story260k")
            assert caught.value.details == {"near": ["stories260k"]}
            with pytest.raises(ModelNotFound, match="no version '7'"):
                w.registry.resolve("stories260k:7")
            for ref in ("", ":", "😀", "x" * 10_000, "\ud800"):
                with pytest.raises(ModelNotFound):
                    w.registry.resolve(ref)

    asyncio.run(main())


def test_remove_frees_what_nobody_else_has(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "a"))
            await _pull(w, make_model(tmp_path / "a", fill=1))
            assert w.blobs.ledger().num_blobs == 4
            gone, kept = w.registry.resolve("a:2"), w.registry.resolve("a:1")
            for version in (gone, kept):
                (w.home.cache / version.model_id / "torch").mkdir(parents=True)
            assert await w.registry.remove("a:2") == gone
            assert [p.name for p in w.home.cache.iterdir()] == [kept.model_id]
            assert gone.model_id not in w.trace()["models"]
            assert w.blobs.ledger().num_blobs == 3
            assert w.registry.resolve("a").ref == "a:1"
            again = await _pull(w, make_model(tmp_path / "a", fill=1))
            assert again.ref == "a:3"  # a number is never given twice
            for ref in ("a", "a:latest"):
                await w.registry.remove(ref)
            assert w.trace() == {}
            with pytest.raises(ModelNotFound):
                await w.registry.remove("a")

    asyncio.run(main())


def _break(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def test_a_broken_folder_leaves_nothing(world: MakeWorld, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a")
    _break(folder)

    async def main() -> None:
        async with world() as w:
            with pytest.raises(ModelRejected, match=r"model\.safetensors: .*truncated"):
                await _pull(w, folder)
            with pytest.raises(ModelRejected, match="no driver serves"):
                await _pull(w, make_model(tmp_path / "b", architectures=["X"]))
            with pytest.raises(NotFound, match="no folder"):
                await _pull(w, tmp_path / "nothing")
            with pytest.raises((ModelRejected, NotFound)):
                await _pull(w, tmp_path / ("long" * 200), "a")
            with pytest.raises(InvalidRequest, match="bad model name"):
                await _pull(w, make_model(tmp_path / "模型"))
            assert (await _pull(w, tmp_path / "模型", "moxing")).ref == "moxing:1"
            await w.registry.remove("moxing")
            assert w.trace() == {}

    asyncio.run(main())


def test_a_folder_that_changes_under_the_copy(
    world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked where it lies, then swapped: the copy is what counts."""
    folder = make_model(tmp_path / "a")

    async def main() -> None:
        async with world() as w:
            copy = w.blobs.copy

            def swap(source: Path, *args: object) -> object:
                if source.name == "model.safetensors":
                    _break(folder)
                return copy(source, *args)  # type: ignore[arg-type]

            monkeypatch.setattr(w.blobs, "copy", swap)
            with pytest.raises(ModelRejected, match="truncated"):
                await _pull(w, folder)
            assert w.trace() == {}

    asyncio.run(main())


def test_the_disk_floor(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(min_free_bytes=1 << 62) as w:
            with pytest.raises(DiskFull):
                await _pull(w, make_model(tmp_path / "a"))
            assert w.trace() == {}

    asyncio.run(main())


def test_a_database_that_refuses_leaves_no_files(
    world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise DiskFull("no")

    async def main() -> None:
        async with world() as w:
            with monkeypatch.context() as patch:
                patch.setattr(w.database, "write", refuse)
                with pytest.raises(DiskFull):
                    await _pull(w, make_model(tmp_path / "a"))
            assert w.trace() == {}
            assert w.registry.list() == []

    asyncio.run(main())


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _upload(w: World, upload_id: str, folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        await w.uploads.write(upload_id, name, _chunks((folder / name).read_bytes()))


def test_an_upload_is_consumed_whatever_comes_of_it(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            folder = make_model(tmp_path / "a")
            await _upload(w, "u", folder)
            with pytest.raises(InvalidRequest, match="no name of its own"):
                await w.registry.pull("upload:u", None, lambda _: None)
            version = await w.registry.pull("upload:u", "mine", lambda _: None)
            assert version.ref == "mine:1"
            with pytest.raises(NotFound):
                await w.registry.pull("upload:u", "mine", lambda _: None)
            await w.registry.remove("mine")
            _break(folder)
            await _upload(w, "u", folder)
            with pytest.raises(ModelRejected):
                await w.registry.pull("upload:u", "mine", lambda _: None)
            assert w.trace() == {}

    asyncio.run(main())


ECHO = Builtin("echo", driver="echo", prepare="e:make", vocab_size=1114112, context_length=32768)


def test_builtins_are_registered_once(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        folder = make_model(tmp_path / "pilot")
        for fill, wanted in ((0, "pilot:1"), (0, "pilot:1"), (1, "pilot:2"), (1, "pilot:2")):
            make_model(folder, fill=fill)
            async with world() as w:
                version = await w.registry.register_builtin(Builtin("pilot", folder))
                assert version.ref == wanted
                assert version.source == "builtin:pilot"
                echo = await w.registry.register_builtin(ECHO)
                assert (echo.ref, echo.driver, echo.vocab_size) == ("echo:1", "echo", 1114112)
                assert echo.model_id in w.trace()["models"]
        async with world() as w:
            for ref in ("pilot", "echo"):
                with pytest.raises(Conflict, match="ships with this release"):
                    await w.registry.remove(ref)
            assert (await w.registry.remove("pilot:1")).ref == "pilot:1"

    asyncio.run(main())


KILLED = """
import asyncio, os, sys
from pathlib import Path
from llmos.registry.registry import ModelRegistry
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.home import open_home
from llmos.storage.uploads import Uploads
home = open_home(Path(sys.argv[1]))
config = StorageConfig(min_free_bytes=0)
blobs = Blobs(home, config)
class Choice: driver = prepare = reason = "x"; kinds = ["generate"]
async def main():
    database = open_database(home.db, config)
    registry = ModelRegistry(
        home, database, blobs, Uploads(home, blobs, config),
        choose_driver=lambda facts, driver=None: Choice, collect=lambda: asyncio.sleep(0),
    )
    await registry.open()
    if sys.argv[3] == "store":
        real = database.write
        async def write(fn):
            os.kill(os.getpid(), 9)
        database.write = write
    def watch(progress):
        if progress.phase == sys.argv[3]:
            os.kill(os.getpid(), 9)
    await registry.pull(f"file:{sys.argv[2]}", "a", watch)
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["hash", "register", "store"])
def test_a_killed_pull_leaves_nothing(moment: str, world: MakeWorld, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "home"), str(folder), moment], check=False
    )
    assert done.returncode == -9

    async def main() -> None:
        async with world() as w:
            assert w.trace() == {}
            assert w.registry.list() == []
            assert (await _pull(w, folder)).ref == "a:1"

    asyncio.run(main())


def test_a_lost_folder_is_made_again_and_a_lost_blob_hides_its_version(
    world: MakeWorld, tmp_path: Path
) -> None:
    async def main() -> None:
        async with world() as w:
            version = await _pull(w, make_model(tmp_path / "a"))
            w.blobs.unlink(version.model_id)
            (w.home.models / "stray").mkdir()
        async with world() as w:
            assert w.registry.resolve("a") == version
            assert (Path(version.folder) / "config.json").is_file()
            assert not (w.home.models / "stray").exists()
            w.blobs.unlink(version.model_id)
            w.blobs.collect(set())
        async with world() as w:
            with pytest.raises(ModelNotFound):
                w.registry.resolve("a")

    asyncio.run(main())


def test_a_home_can_be_moved(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "a"))
        shutil.move(tmp_path / "home", tmp_path / "elsewhere")
        shutil.move(tmp_path / "elsewhere", tmp_path / "home")
        async with world() as w:
            assert w.registry.resolve("a").folder.startswith(str(w.home.models))

    asyncio.run(main())


def test_too_many_pulls_are_refused(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(max_concurrent_pulls=1, max_waiting_pulls=1) as w:
            folders = [make_model(tmp_path / f"m{n}", fill=n) for n in range(3)]
            results = await asyncio.gather(*(_pull(w, f) for f in folders), return_exceptions=True)
            assert [isinstance(r, QueueFull) for r in results] == [False, False, True]
            assert len(w.registry.list()) == 2

    asyncio.run(main())


def test_a_pull_and_removals_at_once(world: MakeWorld, tmp_path: Path) -> None:
    """Blobs shared between a version that goes and one that comes survive."""

    async def main() -> None:
        folder = make_model(tmp_path / "a")
        async with world() as w:
            await _pull(w, folder, "x0")
            for number in range(1, 6):
                version, _ = await asyncio.gather(
                    _pull(w, folder, f"x{number}"), w.registry.remove(f"x{number - 1}")
                )
                assert (Path(version.folder) / "config.json").is_file()
                assert w.blobs.ledger().num_blobs == 3

    asyncio.run(main())


def test_errors_are_typed(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            w.database.close()
            with pytest.raises(StorageError):
                await _pull(w, make_model(tmp_path / "a"))

    asyncio.run(main())
    assert issubclass(StorageError, LLMOSError)


def test_an_alias_is_another_name_until_it_is_given_away(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            one = await _pull(w, make_model(tmp_path / "Tiny"))
            await _pull(w, make_model(tmp_path / "Tiny", fill=1))
            named = await w.registry.set_alias("tiny:1", "Production", "it passed", "me")
            assert (named.model_id, named.aliases) == (one.model_id, ["production"])
            assert w.registry.resolve("tiny:production") == named
            assert w.registry.resolve("tiny").aliases == ["latest"]
            with pytest.raises(Conflict, match="tiny:production"):
                await w.registry.remove("tiny:1")
        async with world() as w:
            assert w.registry.resolve("tiny:production").ref == "tiny:1"
            two = await w.registry.set_alias("tiny", "production", "", "me")
            assert two.aliases == ["latest", "production"]
            assert w.registry.resolve("tiny:1").aliases == []
            await w.registry.remove("tiny:1")
            dropped = await w.registry.drop_alias("tiny:production")
            assert (dropped.ref, dropped.aliases) == ("tiny:2", ["latest"])
            with pytest.raises(ModelNotFound):
                w.registry.resolve("tiny:production")

    asyncio.run(main())


@pytest.mark.parametrize("alias", ["latest", "7", "", "a b", "-x", "x" * 64])
def test_what_is_no_alias_is_refused(world: MakeWorld, tmp_path: Path, alias: str) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "Tiny"))
            with pytest.raises(InvalidRequest, match="bad alias"):
                await w.registry.set_alias("tiny", alias, "", "me")
            with pytest.raises(ModelNotFound):
                await w.registry.set_alias("nobody", "production", "", "me")
            with pytest.raises(InvalidRequest, match="no alias that was given"):
                await w.registry.drop_alias("tiny:latest")

    asyncio.run(main())
