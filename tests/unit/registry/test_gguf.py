"""A GGUF file comes in alone, in a folder, as an upload, from a hub."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.errors import LLMOSError, ModelNotFound, ModelRejected, NotFound
from llmos.registry.names import HubSource, parse_source
from tests.unit.gguf_file import make_gguf
from tests.unit.model_folder import make_model
from tests.unit.registry.conftest import MakeWorld, World
from tests.unit.registry.hub_server import Hub

Source = Callable[[World, Path], str]


def files_of(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in Path(folder).iterdir()}


def alone(world: World, folder: Path) -> str:
    return f"file:{make_gguf(folder, 'My Tiny.Q8.gguf')}"


def in_a_folder(world: World, folder: Path) -> str:
    (folder / "My-Tiny.Q8").mkdir()
    make_gguf(folder / "My-Tiny.Q8")
    return f"file:{folder / 'My-Tiny.Q8'}"


@pytest.mark.parametrize("source", [alone, in_a_folder])
def test_it_comes_in(world: MakeWorld, tmp_path: Path, source: Source) -> None:
    async def main() -> None:
        async with world() as w:
            version = await w.registry.pull(source(w, tmp_path), None, lambda _: None)
            assert version.ref == "my-tiny.q8:1"
            assert (version.format, version.architecture) == ("gguf", "llama")
            assert (version.vocab_size, version.license) == (300, "mit")
            assert version.has_chat_template
            (size,) = files_of(version.folder).values()
            assert size == version.size_bytes

    asyncio.run(main())


def test_equal_files_are_one_version(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            path = make_gguf(tmp_path, "tiny.gguf")
            one = await w.registry.pull(f"file:{path}", None, lambda _: None)
            (tmp_path / "tiny").mkdir()
            shutil.copy(path, tmp_path / "tiny")
            two = await w.registry.pull(f"file:{tmp_path / 'tiny'}", None, lambda _: None)
            assert one == two

    asyncio.run(main())


def damaged(folder: Path) -> Path:
    path = make_gguf(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def linked(folder: Path) -> Path:
    path = folder / "link.gguf"
    path.symlink_to(make_gguf(folder))
    return path


def pickled(folder: Path) -> Path:
    path = folder / "model.bin"
    path.write_bytes(b"\x80")
    return path


def several(folder: Path) -> Path:
    make_gguf(folder, "a.gguf")
    make_gguf(folder, "b.gguf")
    return folder


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (damaged, "truncated"),
        (linked, "one GGUF or ONNX file"),
        (pickled, "one GGUF or ONNX file"),
        (several, "name one: a.gguf, b.gguf"),
        (lambda folder: folder / "no.gguf", "there is no folder or file"),
    ],
)
def test_what_is_none_leaves_nothing(
    world: MakeWorld, tmp_path: Path, make: Callable[[Path], Path], match: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()

    async def main() -> None:
        async with world() as w:
            with pytest.raises((ModelRejected, NotFound), match=match):
                await w.registry.pull(f"file:{make(source)}", "m", lambda _: None)
            assert w.trace() == {}

    asyncio.run(main())


def test_safetensors_are_preferred(world: MakeWorld, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            folder = make_model(tmp_path / "both")
            make_gguf(folder)
            version = await w.registry.pull(f"file:{folder}", None, lambda _: None)
            assert version.format == "safetensors"
            assert "tiny.gguf" not in files_of(version.folder)

    asyncio.run(main())


@pytest.fixture
def shelf(hub: Hub, tmp_path: Path) -> Hub:
    """A repository as people publish quantizations: several files, each a model."""
    folder = tmp_path / "source"
    folder.mkdir()
    several(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "config.json").write_text("{}")
    hub.add("org/Tiny-GGUF", folder)
    return hub


def pulled(world: MakeWorld, hub: Hub, source: str) -> tuple[str, str, set[str]]:
    async def main() -> tuple[str, str, set[str]]:
        async with world(hub_endpoint=hub.url) as w:
            version = await w.registry.pull(source, None, lambda _: None)
            return version.ref, version.license, set(files_of(version.folder))

    return asyncio.run(main())


def test_one_of_a_repository(world: MakeWorld, shelf: Hub) -> None:
    ref, license_, names = pulled(world, shelf, "hf:org/Tiny-GGUF/b.gguf")
    assert (ref, license_) == ("b:1", "apache-2.0")
    assert names == {"b.gguf", "README.md", "config.json"}
    assert shelf.count("GET", "a.gguf") == 0


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ("hf:org/Tiny-GGUF", ModelRejected, "name one: a.gguf, b.gguf"),
        ("hf:org/Tiny-GGUF/c.gguf", ModelNotFound, "its GGUF files: a.gguf, b.gguf"),
    ],
)
def test_it_must_be_named(
    world: MakeWorld, shelf: Hub, source: str, error: type[LLMOSError], match: str
) -> None:
    with pytest.raises(error, match=match):
        pulled(world, shelf, source)


def test_sources_name_files() -> None:
    found = parse_source("hf:org/Name/A.B.gguf@v1")
    assert found == HubSource("org/Name", "v1", "A.B.gguf")
    assert found.default_name == "A.B"
    assert parse_source("hf:org/name.gguf") == HubSource("org/name.gguf", None)
