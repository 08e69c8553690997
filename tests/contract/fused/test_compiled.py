"""Steps compiled in the background: who gets them, what they give, and what failure does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native import compiled as module
from llmos.drivers.native.attention import IMPLEMENTATION
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.compiled import Compiled, Forward, options_for, width_of
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.load import LoadedModel, load_model
from llmos.errors import LoadFailed
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    make_model,
    make_spec,
    random_prompt,
    token_ids,
)

WAIT_S = 300
"""For a compiler on a busy machine."""

OPTIONS = {"engine": "torch", "compile": True}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model with windows, so that plans have something to do."""
    folder = tmp_path_factory.mktemp("windows")
    make_model(folder, "mistral", sliding_window=10)
    return load_model(folder, dtype="auto", device="cpu", context_length=64)


class Uncompiled(Forward):
    """A forward whose compilation is a matter of a moment, and which then runs as it is."""

    def compile(self) -> None:
        self._compile = self._ready

    def run(self, *args: Any) -> torch.Tensor | None:
        with torch.compiler.set_stance("force_eager"):
            super().run(*args)
        self._num_eager = 0
        before = torch.compiler.is_compiling
        torch.compiler.is_compiling = lambda: True
        try:
            return super().run(*args)
        finally:
            torch.compiler.is_compiling = before


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Forward", Uncompiled)


def runner_of(driver: NativeDriver) -> EagerRunner:
    assert isinstance(driver._runner, EagerRunner)
    return driver._runner


def compiled_of(driver: NativeDriver) -> Compiled:
    found = runner_of(driver).batch.compiled
    assert found is not None
    return found


def open_driver(folder: Path, **fields: Any) -> NativeDriver:
    driver = NativeDriver()
    driver.load(make_spec(folder, **({"options": OPTIONS} | fields)), lambda fraction, what: None)
    return driver


def items(count: int, **fields: Any) -> list[Any]:
    return [
        make_item(f"r{n}", random_prompt(n, 7 + n), max_tokens=20, ignore_eos=True, **fields)
        for n in range(count)
    ]


def count_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The width of every compiled step from now on."""
    widths: list[int] = []
    run = Forward.run

    def counting(self: Forward, *args: Any) -> torch.Tensor | None:
        widths.append(self.width)
        return run(self, *args)

    monkeypatch.setattr(Forward, "run", counting)
    return widths


@pytest.mark.usefixtures("uncompiled")
def test_deterministic_steps_are_never_compiled_ones(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_driver(tiny, scratch=str(tmp_path))
    drive(driver, items(4))
    assert compiled_of(driver).wait(WAIT_S)
    widths = count_runs(monkeypatch)
    exact = drive(driver, items(3, deterministic=True))
    assert all(finished(e).deterministic for e in exact.values()) and not widths
    # nobody has them beside one who wants exact steps
    exact = drive(driver, [*items(2), make_item("x", [5], max_tokens=30, deterministic=True)])
    assert finished(exact["x"]).deterministic and not widths
    drive(driver, [*items(2), make_item("x", [5], max_tokens=3, deterministic=True)])
    assert 2 in widths  # from when that one has ended
    driver.unload()


def logits_of(batch: Batch, slots: list[int], step: int) -> torch.Tensor:
    return batch.decode(
        slots, [7 + s for s in slots], [step + s for s in slots], DecodeMode.PACKED
    ).clone()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("slots", [[0], [0, 1, 2], [0, 2, 3], [1, 3], [0, 1, 2, 3, 4]])
def test_rows_that_fill_up_a_width_change_nobody(
    loaded: LoadedModel, tmp_path: Path, slots: list[int]
) -> None:
    plain, other = Batch(loaded, 6), Batch(loaded, 6)
    other.compiled = Compiled(loaded, tmp_path)
    assert other.compiled.find(len(slots)) is None
    assert other.compiled.wait(WAIT_S)
    for step in (0, 1, 2, 30):
        expected, found = logits_of(plain, slots, step), logits_of(other, slots, step)
        assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert other.compiled.progress() == f"compiled for {width_of(len(slots))} rows"


def test_widths() -> None:
    assert [width_of(n) for n in (1, 2, 3, 4, 5, 16, 17)] == [1, 2, 4, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", {"freezing": True}),
        ("cuda:0", {"triton.cudagraphs": True, "graph_partition": True}),
        ("mps", {}),
    ],
)
def test_what_the_compiler_is_asked_for(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, Any]
) -> None:
    """With a stand-in for the compiler: the devices are not here."""
    from torch._inductor import config

    known = {name: config.get_config_copy()[name] for name in ("freezing", *options)}
    told: list[dict[str, Any]] = []

    def stand_in(forward: Any, **how: Any) -> Any:
        assert how == {"fullgraph": True, "dynamic": False}
        return lambda *rows: told.append({n: config.get_config_copy()[n] for n in known})

    make = torch.tensor
    monkeypatch.setattr(torch, "compile", stand_in)
    monkeypatch.setattr(torch, "tensor", lambda numbers, device: make(numbers))
    assert options_for(torch.device(device)) == options
    Forward(loaded.model, 4, torch.device(device)).compile()
    assert told == [known | options]
    assert {name: config.get_config_copy()[name] for name in known} == known


def test_attention_is_kept_out_of_cuda_graphs() -> None:
    assert torch.Tag.cudagraph_unsafe in torch.ops.llmos.attend.default.tags
    assert IMPLEMENTATION == "llmos"


class Slow(Uncompiled):
    """Compiles when it is let."""

    let = threading.Semaphore(0)
    begun = threading.Event()

    def compile(self) -> None:
        Slow.begun.set()
        assert Slow.let.acquire(timeout=WAIT_S)
        super().compile()


def test_how_far_it_is(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Forward", Slow)
    found = Compiled(loaded, tmp_path / "new" / "folder")
    assert found.progress() == ""
    for num_rows in (3, 4, 1, 16, 16, 20, 64):
        assert found.find(num_rows) is None
    assert found.progress() == "compiling 1 of 4"  # 64 is one too many
    assert not found.wait(0)
    for _ in range(3):
        Slow.let.release()
    _until(lambda: found.progress() == "compiling 4 of 4")
    assert found.find(4) is not None and found.find(30) is None
    Slow.let.release()
    assert found.wait(WAIT_S)
    assert found.progress() == "compiled for 1, 4, 16, 32 rows"
    assert found.find(64) is None and found.wait(0)


def _until(holds: Callable[[], bool]) -> None:
    """Of something that another thread does right away."""
    tick = threading.Event()
    for _ in range(WAIT_S * 100):
        if holds():
            return
        tick.wait(0.01)
    raise AssertionError("it never came")


def test_what_is_closed_is_given_back_when_its_compilation_ends(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Forward", Slow)
    Slow.begun.clear()
    found = Compiled(loaded, tmp_path)
    found.find(1)
    found.find(2)
    assert Slow.begun.wait(WAIT_S)
    found.close()  # at once
    assert found.find(4) is None
    Slow.let.release()
    assert found.wait(WAIT_S)
    assert not found._ready and found.find(1) is None
    assert not Slow.let.acquire(blocking=False)  # the second was not begun


def test_without_a_compiler_steps_stay_eager(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Forward) -> None:
        raise torch._inductor.exc.InvalidCxxCompiler

    import torch._inductor.exc

    monkeypatch.setattr(Forward, "compile", broken)
    driver = open_driver(tiny, scratch=str(tmp_path))
    eager = drive(driver, items(2))
    assert compiled_of(driver).wait(WAIT_S)
    assert driver.health().ok
    assert driver.health().detail.startswith("not compiled: No working C++ compiler found")
    assert "steps stay eager" in caplog.text
    again = drive(driver, items(3))
    assert token_ids(again["r1"]) == token_ids(eager["r1"])
    assert compiled_of(driver).wait(0)  # it was not tried again
    driver.unload()


def test_a_folder_that_cannot_be_written(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = Compiled(loaded, tmp_path / "file" / "cache")
    assert found.find(1) is None
    assert found.wait(WAIT_S)
    assert found.progress().startswith("not compiled: ")


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("how", ["raises", "does not hold"])
def test_a_compiled_step_that_fails_is_done_again(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    plain, other = Batch(loaded, 4), Batch(loaded, 4)
    other.compiled = Compiled(loaded, tmp_path)
    other.compiled.find(2)
    assert other.compiled.wait(WAIT_S)
    logits_of(plain, [0, 1], 0), logits_of(other, [0, 1], 0)
    assert not other.compiled._failure

    def broken(self: Forward, *args: Any) -> None:
        if how == "raises":
            raise RuntimeError("boom")

    monkeypatch.setattr(Uncompiled, "run", broken)
    for step in (1, 2):
        assert torch.equal(logits_of(other, [0, 1], step), logits_of(plain, [0, 1], step))
    why = "boom" if how == "raises" else "what was compiled does not hold for the steps"
    assert other.compiled.progress() == f"not compiled: {why}"


def test_a_forward_that_is_not_compiled_is_noticed(loaded: LoadedModel) -> None:
    """In the thread of the steps nothing is compiled: there it would run as it is."""
    batch = Batch(loaded, 2)
    forward = Forward(loaded.model, 1, loaded.device)
    with torch.inference_mode():
        seen: list[torch.Tensor | None] = []
        plan: Any = _Record(seen)
        rows = torch.zeros(1, 1, dtype=torch.long)
        assert forward.run(rows, rows, plan) is None
    assert len(seen) == len(loaded.shapes) and batch.compiled is None


class _Record:
    def __init__(self, seen: list[torch.Tensor | None]) -> None:
        self._seen = seen

    def attend(self, call: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self._seen.append(q)
        return q.transpose(1, 2)


@pytest.mark.parametrize("engine", ["auto", "fused"])
def test_it_is_an_option_of_the_torch_engine(tiny: Path, engine: str) -> None:
    with pytest.raises(LoadFailed, match="ask for engine='torch' with it"):
        open_driver(tiny, options={"engine": engine, "compile": True})
    with pytest.raises(LoadFailed, match="no option compile='yes'"):
        open_driver(tiny, options={"engine": "torch", "compile": "yes"})


@pytest.mark.usefixtures("uncompiled")
def test_who_asks_for_exact_answers_has_them_by_default(tiny: Path, tmp_path: Path) -> None:
    driver = open_driver(tiny, scratch=str(tmp_path), deterministic=True)
    assert all(finished(e).deterministic for e in drive(driver, items(2)).values())
    assert driver.health().detail == ""


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("gemma2", {"sliding_window": 10, "query_pre_attn_scalar": 8}),
        ("gpt2", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_a_step_is_one_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, config: dict[str, Any]
) -> None:
    """Traced as for the compiler, in another thread, and run as it was traced."""
    make_model(tmp_path / "model", model_type, **config)
    loaded = load_model(tmp_path / "model", dtype="auto", device="cpu", context_length=64)
    trace = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda f, fullgraph, dynamic: trace(
            f, fullgraph=fullgraph, dynamic=dynamic, backend="eager"
        ),
    )
    plain, other = Batch(loaded, 4), Batch(loaded, 4)
    other.compiled = Compiled(loaded, tmp_path)
    other.compiled.find(3)
    assert other.compiled.wait(WAIT_S)
    assert other.compiled.progress() == "compiled for 4 rows"
    for step in (0, 1):
        expected, found = logits_of(plain, [0, 1, 3], step), logits_of(other, [0, 1, 3], step)
        assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert other.compiled.progress() == "compiled for 4 rows"
