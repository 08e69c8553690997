"""Adapters in the registry: over a base that is here and stays, or not at all."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.registry import AdapterForm, AdapterOf, ModelVersion, PullOptions
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    ModelRejected,
    StorageError,
)
from llmos.registry.adapters import Base, Bases
from llmos.weights.digest import file_digest
from tests.unit.adapter_folder import PLAIN, UP, make_adapter, make_bare
from tests.unit.model_folder import SHAPES, make_model, make_sharded, safetensors_bytes
from tests.unit.registry.conftest import MakeWorld, World


async def pull(
    w: World, folder: Path, name: str | None = None, base: str | None = None
) -> ModelVersion:
    options = PullOptions(base=base)
    return await w.registry.pull(f"file:{folder}", name, lambda _: None, options)


def test_it_has_the_files_of_its_base_and_takes_its_own_room_only(
    world: MakeWorld, tmp_path: Path
) -> None:
    base = make_model(tmp_path / "tiny")
    folder = make_adapter(tmp_path / "small", base)

    async def main() -> None:
        async with world() as w:
            tiny = await pull(w, base)
            before = w.blobs.ledger().blob_bytes
            version = await w.registry.register(folder, "small", "job:1")
            assert version.adapter is not None
            own = sum(p.stat().st_size for p in (folder / "adapter").iterdir())
            assert w.blobs.ledger().blob_bytes - before == own
            merged = AdapterForm.MERGED
            assert version.adapter == AdapterOf("lora", merged, "tiny:1", tiny.digest, own)
            assert version.footprint_bytes > tiny.footprint_bytes
            there = Path(version.folder)
            assert (there / "model.safetensors").samefile(Path(tiny.folder) / "model.safetensors")
            assert (there / "adapter" / "adapter_model.safetensors").is_file()
            again = await w.registry.register(folder, "small", "job:2")
            assert again.ref == "small:1"
        async with world() as w:  # it is as it was when the home is opened again
            assert w.registry.resolve("small") == again

    asyncio.run(main())


def test_a_base_stays_for_as_long_as_its_adapters(world: MakeWorld, tmp_path: Path) -> None:
    base = make_model(tmp_path / "tiny")
    folder = make_adapter(tmp_path / "small", base)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            await w.registry.register(folder, "small", "job:1")
            with pytest.raises(Conflict, match="tiny:1 is the base of small:1"):
                await w.registry.remove("tiny")
            await w.registry.remove("small")
            await w.registry.remove("tiny")
            assert w.trace() == {}

    asyncio.run(main())


def test_one_of_peft_alone_wants_to_be_told_its_base(world: MakeWorld, tmp_path: Path) -> None:
    bare = make_bare(tmp_path / "lora")

    async def main() -> None:
        async with world() as w:
            tiny = await pull(w, make_model(tmp_path / "tiny"))
            with pytest.raises(InvalidRequest, match="say which version here it is of"):
                await pull(w, bare)
            version = await pull(w, bare, base="tiny")
            assert version.adapter is not None
            assert version.adapter.base == "tiny:1"
            assert _names(version) == {
                "adapter",
                "config.json",
                "model.safetensors",
                "tokenizer.json",
            }
            # what is here can be taken out and in again, with its base's weights or without
            copy = tmp_path / "copy"
            shutil.copytree(version.folder, copy)
            copy.chmod(0o700)
            there = await pull(w, copy, "copied")
            assert there.digest == version.digest
            assert there.adapter == version.adapter
            assert tiny.digest == version.adapter.base_digest

    asyncio.run(main())


def test_of_two_with_the_same_weights_the_one_that_is_named_is_the_base(
    world: MakeWorld, tmp_path: Path
) -> None:
    base = make_model(tmp_path / "tiny")
    folder = make_adapter(tmp_path / "small", base)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            await pull(w, base, "other")
            version = await w.registry.register(folder, "small", "job:1")
            assert version.adapter is not None
            assert version.adapter.base == "tiny:1"

    asyncio.run(main())


def _names(version: ModelVersion) -> set[str]:
    return {path.name for path in Path(version.folder).iterdir()}


Break = Callable[[Path], object]


def _cut(folder: Path) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def _pickle(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    (folder / "adapter" / "adapter_model.bin").write_bytes(b"\x80\x04.")


def _with_weights(folder: Path) -> None:
    shutil.copy(make_model(folder.parent / "x", fill=9) / "model.safetensors", folder)


def _config(**fields: object) -> Break:
    def change(folder: Path) -> None:
        path = folder / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def _claim(text: str) -> Break:
    return lambda folder: (folder / "adapter" / "llmos.json").write_text(text)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_cut, "truncated"),
        (_pickle, "a pickle can run code"),
        (_with_weights, "no weights but its base's"),
        (_claim("{}"), "missing required field"),
        (_claim("[]"), "expected a JSON object"),
        (_claim('{"base": "a", "weights": {}}'), "names no weights"),
        (_claim('{"base": "a", "weights": {"tokenizer.json": "sha256:1"}}'), "names no weights"),
        (_claim('{"base": "a", "weights": {"one.safetensors": "sha256:1"}}'), "names no weights"),
        (
            _claim('{"base": "a", "weights": {"model.safetensors": "", "tokenizer.json": ""}}'),
            "'tokenizer.json' is no file of weights",
        ),
        (_config(peft_type="VERA"), "an adapter of type VERA is none of"),
        (_config(alpha_pattern={"a": 1}), "alpha_pattern is not read here"),
        (_config(bias="all"), "bias is not read here"),
        (_config(trainable_token_indices=[1]), "trainable_token_indices is not read here"),
        (_config(something_new=3), "something_new is not read here"),
        (_config(init_lora_weights="pissa_niter_4"), "changed the base"),
        (_config(init_lora_weights="loftq"), "changed the base"),
        (_config(lora_alpha=10**400), "lora_alpha must be a number"),
        (_config(lora_alpha=float("nan")), "lora_alpha must be a number"),
        (_config(lora_alpha="64"), "lora_alpha must be a number"),
        (_config(use_rslora="yes"), "use_rslora must be true or false"),
        (_config(r=0), "r must be an integer"),
        (_config(use_dora=True), "has lora_A, lora_B in a dora adapter"),
        (lambda folder: (folder / "adapter" / "adapter_config.json").unlink(), "missing"),
    ],
)
def test_what_is_broken_is_refused_and_leaves_nothing(
    world: MakeWorld, tmp_path: Path, broken: Break, why: str
) -> None:
    base = make_model(tmp_path / "tiny")
    folder = make_adapter(tmp_path / "small", base)
    broken(folder)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            before = w.trace()
            with pytest.raises(ModelRejected, match=why):
                await w.registry.register(folder, "small", "job:1")
            assert w.trace() == before

    asyncio.run(main())


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({f"{UP}.lora_A.weight": [2, 4]}, "has lora_A in a lora adapter"),
        ({f"{UP}.lora_A.weight": [2, 5], f"{UP}.lora_B.weight": [4, 2]}, "does not fit"),
        ({f"{UP}.lora_A.weight": [0, 4], f"{UP}.lora_B.weight": [4, 0]}, "does not fit"),
        ({"nowhere.lora_A.weight": [2, 4], "nowhere.lora_B.weight": [4, 2]}, "another model"),
        (PLAIN | {f"{UP}.lora_embedding_A": [2, 4]}, "none that is read here"),
    ],
)
def test_tensors_that_do_not_fit(
    world: MakeWorld, tmp_path: Path, shapes: dict[str, list[int]], why: str
) -> None:
    base = make_model(tmp_path / "tiny")
    folder = make_adapter(tmp_path / "small", base, shapes)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            with pytest.raises(ModelRejected, match=why):
                await w.registry.register(folder, "small", "job:1")

    asyncio.run(main())


@pytest.mark.parametrize("shape", [[], [4], [1, 4, 1], [2, 2], [1, 5]])
def test_scales_of_other_dimensions(world: MakeWorld, tmp_path: Path, shape: list[int]) -> None:
    base = make_model(tmp_path / "tiny")
    said = {"peft_type": "IA3", "r": None, "lora_alpha": None}
    bare = make_bare(tmp_path / "ia3", {f"{UP}.ia3_l": shape}, **said)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            with pytest.raises(ModelRejected, match="does not fit"):
                await pull(w, bare, base="tiny")

    asyncio.run(main())


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("shapes", "config", "why"),
    [
        (PLAIN | {"score.weight": [3, 4]}, {}, "score.weight is not in the base: the config.json"),
        (PLAIN | {EMBEDDING: [9, 4]}, {}, "has another shape in the base: the config.json"),
        (PLAIN | {EMBEDDING: [8, 5]}, {}, "another shape in the base"),
        (PLAIN, {"task_type": "SEQ_CLS"}, "task_type SEQ_CLS is not served by LlamaForCausalLM"),
    ],
)
def test_what_the_base_has_no_place_for_wants_a_configuration_of_its_own(
    world: MakeWorld,
    tmp_path: Path,
    shapes: dict[str, list[int]],
    config: dict[str, str],
    why: str,
) -> None:
    base = make_model(tmp_path / "tiny")
    bare = make_bare(tmp_path / "bare", shapes, **config)
    ours = make_adapter(tmp_path / "ours", base, shapes, **config)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            for folder in (bare, ours):
                with pytest.raises(ModelRejected, match=why):
                    await pull(w, folder, base="tiny")

    asyncio.run(main())


def test_a_configuration_of_its_own_explains_a_head(world: MakeWorld, tmp_path: Path) -> None:
    base = make_model(tmp_path / "tiny")
    shapes = PLAIN | {"score.weight": [3, 4]}
    bare = make_bare(tmp_path / "bare", shapes, task_type="SEQ_CLS")
    other = make_model(tmp_path / "o", architectures=["LlamaForSequenceClassification"])
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(other / name, bare)
    wrong = make_adapter(tmp_path / "wrong", base, PLAIN | {EMBEDDING: [7, 4]})
    narrow = make_adapter(tmp_path / "narrow", base, PLAIN | {EMBEDDING: [8, 5]})
    for folder in (wrong, narrow):
        make_model(tmp_path / "x", rope_theta=7)
        shutil.copy(tmp_path / "x" / "config.json", folder)

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            # all is well but for the drivers of this test, which know no classifiers
            with pytest.raises(ModelRejected, match="no driver serves LlamaForSequence"):
                await pull(w, bare, base="tiny")
            with pytest.raises(ModelRejected, match="has 7 rows"):
                await pull(w, wrong)
            with pytest.raises(ModelRejected, match=r"has shape \[8, 5\], not \[8, 4\]"):
                await pull(w, narrow)

    asyncio.run(main())


@pytest.mark.parametrize("num_shards", [0, 1, 2])
def test_a_claim_names_all_that_its_base_is(
    world: MakeWorld, tmp_path: Path, num_shards: int
) -> None:
    base = make_sharded(tmp_path / "tiny")
    names = sorted(p.name for p in base.glob("*.safetensors"))[:num_shards]
    names.append("model.safetensors.index.json")
    claim = {"base": "tiny", "weights": {name: file_digest(base / name) for name in names}}
    folder = make_adapter(tmp_path / "small", make_model(tmp_path / "other"))
    (folder / "adapter" / "llmos.json").write_text(json.dumps(claim))

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            if num_shards == 2:
                assert (await pull(w, folder)).adapter is not None
            else:
                with pytest.raises(ModelRejected, match="whose weights are others"):
                    await pull(w, folder)
            bare = await pull(w, make_bare(tmp_path / "bare"), base="tiny")
            assert bare.adapter is not None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("stored", "learned", "said"),
    [("", "model.", {"lacks": "model."}), ("model.", "", {"extra": "model."})],
)
def test_a_base_whose_files_name_it_with_another_prefix(
    world: MakeWorld, tmp_path: Path, stored: str, learned: str, said: dict[str, str]
) -> None:
    base = make_model(tmp_path / "tiny")
    shapes = {stored + name.removeprefix("model."): shape for name, shape in SHAPES.items()}
    (base / "model.safetensors").write_bytes(safetensors_bytes(shapes))
    names = {learned + name.removeprefix("model."): shape for name, shape in PLAIN.items()}

    async def main() -> None:
        async with world() as w:
            await pull(w, base)
            version = await pull(w, make_bare(tmp_path / "bare", names), base="tiny")
            claim = json.loads((Path(version.folder) / "adapter" / "llmos.json").read_text())
            assert {"lacks": "", "extra": "", "method": ""} | said == {
                name: claim[name] for name in ("lacks", "extra", "method")
            }

    asyncio.run(main())


def test_bases_that_cannot_be(world: MakeWorld, tmp_path: Path) -> None:
    base, other = make_model(tmp_path / "tiny"), make_model(tmp_path / "other", fill=1)
    folder, bare = make_adapter(tmp_path / "small", base), make_bare(tmp_path / "bare")

    async def refused(work: object, error: type[LLMOSError], why: str) -> None:
        with pytest.raises(error, match=why):
            await work  # type: ignore[misc]

    async def main() -> None:
        async with world() as w:
            await refused(pull(w, folder), ModelRejected, "no version here has those weights")
            await pull(w, other)
            await refused(pull(w, folder, base="other"), ModelRejected, "whose weights are others")
            await refused(pull(w, bare, base="nobody"), ModelNotFound, "no model 'nobody'")
            await pull(w, base)
            small = await pull(w, folder)
            again = pull(w, bare, "again", base=small.ref)
            await refused(again, ModelRejected, "no adapters of adapters")
            quantizing = w.registry.quantize("small", "int8", None, lambda _: None)
            await refused(quantizing, Conflict, "is an adapter of tiny:1")

    asyncio.run(main())


def test_what_is_wrong_here_is_not_the_adapters_fault(
    world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_bare(tmp_path / "bare")

    def full(path: Path, data: bytes) -> int:
        assert path.name == "llmos.json"
        raise OSError(errno.ENOSPC, "no room")

    async def late(*_: object) -> Base:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        async with world() as w:
            await pull(w, make_model(tmp_path / "tiny"))
            with monkeypatch.context() as patched:
                patched.setattr(Path, "write_bytes", full)
                with pytest.raises(DiskFull, match=r"writing llmos\.json: no room"):
                    await pull(w, bare, base="tiny")
            monkeypatch.setattr("llmos.registry.adapters._FIND_S", 0.01)
            monkeypatch.setattr(Bases, "_find", late)
            with pytest.raises(StorageError, match="the base was not found within"):
                await pull(w, bare, base="tiny")

    asyncio.run(main())
