"""The shape of every entry, and finding them."""

from __future__ import annotations

import pytest

from llmos.drivers.catalog import DRIVERS
from llmos.library.catalogue import TASKS, Entry, entries, entry_of, find_entry, search
from llmos.registry.names import HubSource, normalise_name, parse_source
from llmos.shapes.tasks import TaskBody

LICENSES = {"Apache-2.0", "BSD-3-Clause", "MIT", "CC-BY-4.0", "CC-BY-NC-4.0"}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_an_entry_can_be_pulled_and_says_what_it_is(entry: Entry) -> None:
    assert normalise_name(entry.name) == entry.name
    if entry.source:
        parsed = parse_source(entry.source)
        assert isinstance(parsed, HubSource)
        assert parsed.repo.count("/") == 1
        assert (entry.driver == "gguf") == bool(parsed.file)
    assert set(entry.tasks) <= set(TASKS)
    assert len(set(entry.tasks)) == len(entry.tasks)
    assert all(len(code) == 2 or code == "multi" for code in entry.languages)
    assert entry.license in LICENSES
    assert entry.driver in DRIVERS
    assert 10**4 < entry.params < 10**12
    assert entry.about == entry.about.strip()
    assert entry.hardware
    assert all(0 <= one.value <= 1 for one in entry.measured)
    assert not (entry.measured and entry.source), "only what is bundled was measured here"


def test_names_and_sources_are_there_once() -> None:
    names = [entry.name for entry in entries()]
    sources = [entry.source.lower() for entry in entries() if entry.source]
    assert len(set(names)) == len(names)
    assert len(set(sources)) == len(sources)
    assert len(names) >= 40


def test_every_task_of_the_api_has_a_model_in_english_and_most_in_chinese() -> None:
    kinds = TaskBody.model_fields["type"].annotation.__args__  # type: ignore[union-attr]
    for kind in kinds:
        assert search([], kind, "en"), kind
    for kind in ("generate", "classify", "embed", "rerank"):
        assert search([], kind, "zh"), kind


def test_a_name_leads_to_its_source_and_back() -> None:
    entry = find_entry("Qwen3-0.6B")
    assert entry is not None
    assert entry.source == "hf:Qwen/Qwen3-0.6B"
    assert entry_of("whatever", "hf:Qwen/Qwen3-0.6B@main") == entry
    assert entry_of("pilot", "builtin:pilot") == find_entry("pilot")
    assert entry_of("mine", "file:/models/mine") is None
    assert find_entry("") is None


def test_search_is_by_words_task_and_language_the_smallest_first() -> None:
    found = search(["bge"], "embed", "zh")
    assert [entry.name for entry in found] == ["bge-small-zh", "bge-base-zh"]
    assert search(["qwen", "no such"]) == []
    sizes = [entry.params for entry in search([])]
    assert sizes == sorted(sizes)
