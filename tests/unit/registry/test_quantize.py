"""A registered version made into a quantized one, and everything that stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmos.abi.registry import ModelVersion, PullProgress
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    ModelNotFound,
    ModelRejected,
    StorageError,
)
from llmos.registry.registry import Builtin
from llmos.weights.quantized import QuantizedFolder
from tests.unit.model_folder import SHAPES, make_model, safetensors_bytes
from tests.unit.registry.conftest import MakeWorld, World


async def _pull(w: World, folder: Path, name: str | None = None) -> ModelVersion:
    return await w.registry.pull(f"file:{folder}", name, lambda _: None)


async def _quantize(w: World, ref: str, to: str, name: str | None = None) -> ModelVersion:
    return await w.registry.quantize(ref, to, name, lambda _: None)


def test_a_new_version_beside_the_old_one(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            source = await _pull(w, make_model(tmp_path / "tiny"))
            reports: list[PullProgress] = []
            made = await w.registry.quantize("tiny", "int4", None, reports.append)
            assert (made.ref, made.dtype, made.source) == (
                "tiny-int4:1",
                "int4",
                "quantized:tiny:1",
            )
            assert (made.num_parameters, made.architecture) == (
                *(source.num_parameters, source.architecture),
            )
            assert {r.phase for r in reports} == {"check", "quantize", "hash", "register"}
            (done,) = {r.done_bytes for r in reports if r.phase == "quantize" and r.done_bytes} & {
                r.total_bytes for r in reports if r.phase == "quantize"
            }
            assert done == 192  # all of the source was read
            QuantizedFolder(Path(made.folder)).check()
            assert w.registry.resolve("tiny").digest == source.digest
            same = await _quantize(w, "tiny:1", "int4")
            assert same.model_id == made.model_id
            other = await _quantize(w, "tiny:1", "int8", "Org/Small")
            assert (other.ref, other.dtype) == ("org/small:1", "int8")
            newer = await _quantize(w, "tiny", "int8", "tiny")
            assert newer.ref == "tiny:2"
            assert set(w.trace()) == {"models", "blobs"}
        async with world() as w:  # after a restart
            again = w.registry.resolve("tiny-int4")
            assert again == made
            assert list(again.loads) == ["int4"]

    asyncio.run(main())


def test_what_is_refused(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "tiny"))
            shapes = SHAPES | {"model.layers.0.mlp.experts.0.up_proj.weight": [4, 4]}
            mixture = make_model(tmp_path / "mixture")
            (mixture / "model.safetensors").write_bytes(safetensors_bytes(shapes))
            await _pull(w, mixture)
            await w.registry.register_builtin(Builtin(name="bare", driver="echo"))
            await _quantize(w, "tiny", "int8")
            before = w.trace()
            for ref, to, error, what in (
                ("nobody", "int8", ModelNotFound, "no model"),
                ("tiny", "int5", InvalidRequest, "int8 or int4"),
                ("tiny-int8", "int4", Conflict, r"quantized already \(int8\)"),
                ("mixture", "int8", ModelRejected, "LlamaForCausalLM is not quantized to int8"),
                ("bare", "int8", ModelRejected, "no weights"),
            ):
                with pytest.raises(error, match=what):
                    await _quantize(w, ref, to)
            with pytest.raises(InvalidRequest, match="bad model name"):
                await _quantize(w, "tiny", "int8", "no name")
            assert w.trace() == before

    asyncio.run(main())


def test_weights_that_are_no_numbers(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "tiny", fill=0xFF))  # all NaN
            before = w.trace()
            with pytest.raises(ModelRejected, match=r"\.weight' holds weights that are not"):
                await _quantize(w, "tiny", "int8")
            assert w.trace() == before

    asyncio.run(main())


def test_no_room_on_the_disk(
    world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "tiny"))
            before = w.trace()

            def full(size_bytes: int, share: float = 1.0) -> None:
                assert size_bytes > 100
                raise DiskFull("the disk is too full")

            monkeypatch.setattr(w.blobs, "require_free", full)
            with pytest.raises(DiskFull):
                await _quantize(w, "tiny", "int8")
            assert w.trace() == before

    asyncio.run(main())


def test_one_that_is_removed_meanwhile(
    world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with world() as w:
            source = await _pull(w, make_model(tmp_path / "tiny"))
            require_free = w.blobs.require_free

            def remove(size_bytes: int, share: float = 1.0) -> None:
                w.blobs.unlink(source.model_id)
                require_free(size_bytes, share)

            monkeypatch.setattr(w.blobs, "require_free", remove)
            with pytest.raises((ModelRejected, StorageError)):
                await _quantize(w, "tiny", "int8")
            assert set(w.trace()) == {"blobs"}
            assert [v.ref for v in w.registry.list()] == ["tiny:1"]

    asyncio.run(main())


def test_giving_up(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            await _pull(w, make_model(tmp_path / "tiny"))
            before = w.trace()
            begun = asyncio.Event()

            def watch(report: PullProgress) -> None:
                if report.phase == "quantize":
                    begun.set()

            task = asyncio.create_task(w.registry.quantize("tiny", "int8", None, watch))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():  # it was faster
                assert (await task).ref == "tiny-int8:1"
                await w.registry.remove("tiny-int8")
            assert w.trace() == before

    asyncio.run(main())
