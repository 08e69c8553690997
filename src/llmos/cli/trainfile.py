"""From a recipe file, options and `--set` to a recipe and the files it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmos.errors import InvalidRequest

SPLITS = ("train", "validation", "test")


class Planned(NamedTuple):
    """A recipe that was checked, and where its data are on this machine, by split."""

    recipe: dict[str, Any]
    sources: dict[str, Path]


def assemble(path: Path | None, fields: Mapping[str, Any], pairs: list[str]) -> Planned:
    """What is later wins: the file, the options, `--set`. Raises InvalidRequest."""
    recipe, folder = _read(path) if path is not None else ({}, Path())
    local = set()
    for name, value in fields.items():
        if value is not None:
            _put(recipe, name, _number(value) if name.startswith("data.") else value)
            local.add(name)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{pair!r} is not FIELD=VALUE", param="--set")
        _put(recipe, name, _yaml(value))
        local.add(name)
    data = recipe.get("data")
    if path is None and "name" not in recipe:
        raise InvalidRequest("a model needs a name: a recipe, or --name", param="--name")
    sources = {}
    for split in SPLITS:
        said = data.get(split) if isinstance(data, dict) else None
        if isinstance(said, str) and said:
            root = Path() if f"data.{split}" in local else folder
            sources[split] = _source(root / Path(said).expanduser(), split)
    _check(recipe)
    return Planned(recipe, sources)


def _check(recipe: dict[str, Any]) -> None:
    """Here already, so that a slip is told before anything is sent. Raises InvalidRequest."""
    from llmos.programs.train.recipe import parse

    parse(recipe)


def _read(path: Path) -> tuple[dict[str, Any], Path]:
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", param="RECIPE") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{path} is no YAML: {error}", param="RECIPE") from error
    if not isinstance(recipe, dict):
        raise InvalidRequest(f"{path} holds no fields", param="RECIPE")
    return recipe, path.parent


def _put(recipe: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    place = recipe
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise InvalidRequest(f"{section} is one value, not a section", param=name)
    place[last] = value


def _yaml(value: str) -> Any:
    import yaml

    try:
        return _number(yaml.safe_load(value))
    except yaml.YAMLError:
        return value


def _number(value: Any) -> Any:
    """`0.1` as an option is a share, `1e-3` a number, which YAML 1.1 takes for a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _source(path: Path, split: str) -> Path:
    if not path.exists():
        raise InvalidRequest(f"{path} does not exist", param=f"data.{split}")
    return path


@contextmanager
def packed(source: Path) -> Iterator[Path]:
    """A file itself; of a folder, an archive that is made for now, in the order of names."""
    if not source.is_dir():
        yield source
        return
    import tarfile
    import tempfile

    with tempfile.TemporaryDirectory(prefix="llmos-train-") as scratch:
        made = Path(scratch) / f"{source.resolve().name or 'folder'}.tar"
        with tarfile.open(made, "w") as archive:
            for path in sorted(source.rglob("*")):
                name = path.relative_to(source)
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    archive.add(path, name.as_posix())
        yield made
