"""What a language model says with an adapter over it, whoever runs it: what PEFT says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmos.abi.driver import DraftSpec
from llmos.abi.events import Finished, Tokens
from llmos.drivers.adapters.folder import open_adapted
from llmos.errors import DiskFull, LoadFailed, ModelRejected
from llmos.weights import inspect
from llmos.weights.adapters import Claim, read_adapter
from llmos.weights.adapting import named_for
from llmos.weights.digest import file_digest
from tests.contract.native.adapted import NUM_TOKENS, adapt
from tests.unit.drivers.tiny import drive, make_item, make_model, random_prompt, token_ids

# what libraries say to each other about their next releases
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

Load = Callable[..., Any]
METHODS = ("lora", "dora", "ia3", "prompt", "p-tuning", "prefix", "bottleneck")
BESIDE = ("prompt", "p-tuning", "prefix", "bottleneck")


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    kept: dict[str, tuple[Path, Any]] = {}

    def make(method: str) -> tuple[Path, Any]:
        if method not in kept:
            folder = tmp_path_factory.mktemp("adapted") / method
            kept[method] = folder, adapt(tiny, method, folder)
        return kept[method]

    return make


def expected(model: Any, prompt: list[int], num_tokens: int) -> list[tuple[int, float]]:
    """Greedy, from the beginning for every token: id and log-probability."""
    ids, found = list(prompt), []
    for _ in range(num_tokens):
        given = torch.tensor([ids])
        with torch.inference_mode():
            logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, -1]
        best = int(logits.argmax())
        found.append((best, float(logits.float().log_softmax(-1)[best])))
        ids.append(best)
    return found


def said(events: list[Any]) -> list[tuple[int, float]]:
    return [
        (one.drawn.token_id, one.drawn.logprob)
        for event in events
        if isinstance(event, Tokens)
        for one in event.logprobs or []
    ]


@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_peft_says(load: Load, made: Any, tmp_path: Path, method: str) -> None:
    folder, model = made(method)
    driver = load(folder, scratch=str(tmp_path))
    engine = "torch" if method in BESIDE else driver._model().info.engine
    assert driver._model().info.engine == engine
    prompts = {f"req_{n}": random_prompt(n, n) for n in (1, 5, 70)}
    items = [
        make_item(name, ids, max_tokens=6, logprobs=0, ignore_eos=True)
        for name, ids in prompts.items()
    ]
    events = drive(driver, items)
    for name, ids in prompts.items():
        wanted = expected(model, ids, 6)
        found = said(events[name])
        assert [i for i, _ in found] == [i for i, _ in wanted]
        assert [p for _, p in found] == pytest.approx([p for _, p in wanted], abs=2e-3)
        ended = events[name][-1]
        assert isinstance(ended, Finished)
        assert ended.usage.prompt_tokens == len(ids)


def test_a_merged_adapter_is_the_merged_model(
    load: Load, made: Any, tmp_path: Path, tiny: Path
) -> None:
    """To the bit, and quantized as it loads as well."""
    folder, _ = made("lora")
    merged = tmp_path / "merged"
    adapt(tiny, "lora", tmp_path / "again").merge_and_unload().save_pretrained(merged)
    (merged / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    item = make_item("req_1", random_prompt(3, 20), max_tokens=8, logprobs=0, ignore_eos=True)
    for dtype in ("auto", "int8"):
        ours = load(folder, fresh=True, dtype=dtype, scratch=str(tmp_path))
        theirs = load(merged, fresh=True, dtype=dtype, scratch=str(tmp_path))
        assert ours.memory().weights_bytes == theirs.memory().weights_bytes
        assert said(drive(ours, [item])["req_1"]) == said(drive(theirs, [item])["req_1"])


@pytest.mark.parametrize("method", ["prompt", "prefix", "bottleneck", "lora"])
def test_what_is_put_off_and_parked_goes_on_exactly(
    load: Load, made: Any, tmp_path: Path, method: str
) -> None:
    folder, _ = made(method)
    driver = load(folder, scratch=str(tmp_path), snapshots=str(tmp_path / "snapshots"))
    item = make_item("req_1", random_prompt(2, 9), max_tokens=10, deterministic=True)
    whole = token_ids(drive(driver, [item])["req_1"])
    for after in (1, 4):
        driver.submit(item)
        events = [event for _ in range(after) for event in driver.step()]
        snapshot = driver.suspend("req_1")
        driver.park()
        driver.unpark()
        driver.resume(item, snapshot)
        events += drive(driver)["req_1"]
        assert token_ids(events) == whole


def test_scores_of_a_prompt_leave_virtual_tokens_out(load: Load, made: Any, tmp_path: Path) -> None:
    for method in ("prompt", "prefix"):
        folder, model = made(method)
        ids = random_prompt(4, 6)
        item = make_item("req_1", ids, max_tokens=1, prompt_logprobs=0)
        ended = drive(load(folder, scratch=str(tmp_path)), [item])["req_1"][-1]
        assert ended.prompt_logprobs is not None
        assert [one.drawn.token_id for one in ended.prompt_logprobs] == ids
        given = torch.tensor([ids])
        with torch.inference_mode():
            logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0]
        logits = logits[-len(ids) :].float().log_softmax(-1)
        found = [one.drawn.logprob for one in ended.prompt_logprobs[1:]]
        assert found == pytest.approx(
            [float(logits[n, i]) for n, i in enumerate(ids[1:])], abs=2e-3
        )


def test_virtual_tokens_take_room(load: Load, made: Any, tiny: Path, tmp_path: Path) -> None:
    folder, _ = made("prefix")
    longest = inspect(tiny).context_length
    assert inspect(folder).context_length == longest - NUM_TOKENS
    driver = load(folder, scratch=str(tmp_path), context_length=longest)
    assert driver._model().info.context_length == longest - NUM_TOKENS
    ids = random_prompt(5, longest - NUM_TOKENS - 2)
    (*_, ended) = drive(driver, [make_item("req_1", ids, ignore_eos=True)])["req_1"]
    assert ended.usage.completion_tokens == 2


def test_a_draft_has_no_virtual_tokens(load: Load, made: Any, tiny: Path, tmp_path: Path) -> None:
    folder, _ = made("prompt")
    draft = DraftSpec("small:1", str(folder), "sha256:1")
    with pytest.raises(LoadFailed, match="does not guess ahead"):
        load(tiny, fresh=True, draft=draft, scratch=str(tmp_path))


def test_an_adapter_of_another_model_is_refused(made: Any, tmp_path: Path) -> None:
    folder, _ = made("lora")
    make_model(tmp_path / "other", hidden_size=16, head_dim=4)
    other = tmp_path / "other"
    (other / "adapter").mkdir()
    for path in (folder / "adapter").iterdir():
        (other / "adapter" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelRejected, match="does not fit"):
        inspect(other)


@pytest.mark.parametrize(
    ("method", "part"),
    [("lora", ".lora_B.weight"), ("dora", ".lora_magnitude_vector"), ("prompt", "embeddings")],
)
def test_numbers_that_are_none_are_refused_and_leave_no_file(
    load: Load, made: Any, tmp_path: Path, method: str, part: str
) -> None:
    folder, _ = made(method)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith(part))
    tensors[name][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(ModelRejected, match="is not finite"):
        load(broken, fresh=True, scratch=str(tmp_path / "scratch"))
    assert not [*(tmp_path / "scratch").rglob("*.safetensors")]


def test_what_arithmetic_does_not_let_happen_is_a_failed_load(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made("lora")

    def fail(*_: object) -> torch.Tensor:
        raise OverflowError("too large")

    monkeypatch.setattr("llmos.drivers.adapters.folder.merged_weight", fail)
    with pytest.raises(LoadFailed, match="merging lora: too large"):
        open_adapted(folder, str(tmp_path))
    assert not [*tmp_path.iterdir()]


def test_names_without_the_models_prefix(load: Load, tmp_path: Path) -> None:
    """As GPT-2 is stored, and PEFT names what it learned over it."""
    import peft
    import transformers

    base, saved = tmp_path / "gpt2", tmp_path / "saved"
    make_model(base, "gpt2")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["c_attn"]}
    config["fan_in_fan_out"] = True
    torch.manual_seed(3)
    learned: Any = peft.get_peft_model(model, peft.LoraConfig(**config))
    with torch.no_grad():
        for parameter in learned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    learned.eval().save_pretrained(saved)
    tensors = load_file(base / "model.safetensors")
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in tensors.items()
        if name != "lm_head.weight"
    }
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    claim = Claim("gpt2", {"model.safetensors": file_digest(base / "model.safetensors")})
    claim = named_for(read_adapter(saved, claim), tensors)
    (base / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(saved / name, base / "adapter")
    (base / "adapter" / "llmos.json").write_bytes(msgspec.json.encode(claim))
    ids = random_prompt(2, 9)
    item = make_item("req_1", ids, max_tokens=5, logprobs=0, ignore_eos=True)
    driver = load(base, fresh=True, scratch=str(tmp_path / "scratch"))
    found = said(drive(driver, [item])["req_1"])
    wanted = expected(learned, ids, 5)
    assert [i for i, _ in found] == [i for i, _ in wanted]
    assert [p for _, p in found] == pytest.approx([p for _, p in wanted], abs=2e-3)


def test_a_merge_leaves_free_what_must_stay_free(
    load: Load, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made("lora")
    size_bytes = (folder / "model.safetensors").stat().st_size
    total = shutil.disk_usage(tmp_path).total
    with pytest.raises(DiskFull, match=f"of which {total} must stay free"):
        load(folder, fresh=True, scratch=str(tmp_path), min_free_bytes=total)
    reserve = os.posix_fallocate

    def beside_another(*args: int) -> None:
        reserve(*args)
        usage = shutil.disk_usage(tmp_path)._replace(free=size_bytes)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    monkeypatch.setattr(os, "posix_fallocate", beside_another)
    with pytest.raises(DiskFull):
        open_adapted(folder, str(tmp_path), 2 * size_bytes)
    assert not [*tmp_path.rglob("*.safetensors")]
    monkeypatch.undo()
    adapted = open_adapted(folder, str(tmp_path), size_bytes)
    assert adapted is not None
    assert inspect(adapted.folder).adapter is None
