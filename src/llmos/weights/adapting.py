"""What an adapter does to the tensors of its base, told from headers alone: does it fit?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from llmos.abi.registry import AdapterForm, LoadCost
from llmos.errors import ModelRejected
from llmos.weights import adapters
from llmos.weights.adapters import Adapter, Claim
from llmos.weights.dtypes import FLOATS, ITEM_BYTES
from llmos.weights.facts import Adapted, ModelFacts
from llmos.weights.footprint import ROWS
from llmos.weights.processor import QUANTIZED
from llmos.weights.safetensors import Tensor
from llmos.weights.textmodel import check_embedding

PROMPT = "prompt_embeddings"
"""Of virtual tokens, or of the keys and values in their place: a row each."""

_PART = re.compile(
    r"(?P<path>.+)\.(?P<part>lora_A|lora_B|lora_E|lora_magnitude_vector|ia3_l"
    r"|bottleneck_(?:down|up)(?=\.))(?P<rest>(?:\.(?:weight|bias))?)"
)
_FOREIGN = re.compile(r"(^|\.)(lora_|ia3_|vera_|hada_|lokr_|oft_|boft_|prompt_|token_adapter)")
_PARTS: dict[str, set[frozenset[str]]] = {
    "LORA": {
        frozenset({"lora_A", "lora_B"}),
        frozenset({"lora_A", "lora_B", "lora_magnitude_vector"}),
    },
    "ADALORA": {frozenset({"lora_A", "lora_B", "lora_E"})},
    "IA3": {frozenset({"ia3_l"})},
    adapters.BOTTLENECK: {
        frozenset(f"bottleneck_{a}.{b}" for a in ("down", "up") for b in ("weight", "bias"))
    },
}
"""Of a module, all that an adapter of a kind must have of it."""


_HEADS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
"""What an architecture is called with the head of one of PEFT's tasks."""


_WANTED = (
    "the config.json and tokenizer.json of the model that it was learned in are wanted beside it"
)


class Edits(msgspec.Struct, frozen=True):
    """By names of the model's own modules: `whole` tensors that stand beside or instead of the
    base's, `parts` of each module that is changed, and `prompt`, in front of every text."""

    whole: dict[str, Tensor]
    parts: dict[str, dict[str, Tensor]]
    prompt: Tensor | None = None


def edits_of(adapter: Adapter) -> Edits:
    """Every tensor in its place. Raises ModelRejected for one that has none."""
    whole: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    prompt = None
    for tensor in adapter.tensors:
        _check_float(tensor)
        path = adapter.path_of(tensor.name)
        if path == PROMPT:
            prompt = tensor
        elif match := _PART.fullmatch(path):
            part = match["part"]
            part += match["rest"] if part.startswith("bottleneck") else ""
            parts.setdefault(match["path"], {})[part] = tensor
        elif _FOREIGN.search(path):
            raise _rejected(path, "is none that is read here")
        else:
            whole[path] = tensor
    needs_prompt = adapter.form in (AdapterForm.TOKENS, AdapterForm.PREFIX)
    if needs_prompt != (prompt is not None):
        raise _rejected(PROMPT, "is missing" if needs_prompt else f"in a {adapter.method} adapter")
    wanted = _PARTS.get(adapter.kind, set())
    for path, found in parts.items():
        is_whole = ("lora_magnitude_vector" in found) == adapter.config.flag("use_dora")
        if frozenset(found) not in wanted or not is_whole:
            raise _rejected(path, f"has {', '.join(sorted(found))} in a {adapter.method} adapter")
    return Edits(whole, parts, prompt)


def adapted(folder: Path, facts: ModelFacts, tensors: Iterable[Tensor]) -> ModelFacts:
    """Facts of a base with those of the adapter in its folder laid over them.

    Raises ModelRejected for an adapter that is broken, or of another base.
    """
    adapter = adapters.read_adapter(folder / adapters.FOLDER)
    if facts.quantization:
        raise ModelRejected(f"adapter: its base is quantized ({facts.quantization[:40]})")
    edits = edits_of(adapter)
    base = {adapter.claim.path_of(tensor.name): tensor for tensor in tensors}
    check_fits(adapter, edits, base)
    _check_task(adapter, facts)
    if facts.vocab_size:
        whole = [replace(tensor, name=path) for path, tensor in edits.whole.items()]
        check_embedding(whole, facts.vocab_size, facts.hidden_size)
    num_tokens = 0
    if edits.prompt is not None:
        num_tokens = _check_prompt(adapter, edits.prompt, facts)
    extra_bytes = _extra_bytes(adapter, edits, base) + num_tokens * facts.kv_bytes_per_token * ROWS
    loads = {
        dtype: LoadCost(cost.footprint_bytes + extra_bytes, cost.kv_bytes_per_token)
        for dtype, cost in facts.loads.items()
        if adapter.form is AdapterForm.MERGED or dtype not in QUANTIZED
    }
    return replace(
        facts,
        num_parameters=facts.num_parameters + sum(t.num_elements for t in adapter.tensors),
        context_length=facts.context_length - num_tokens,
        footprint_bytes=facts.footprint_bytes + extra_bytes,
        loads=loads,
        adapter=Adapted(adapter.method, adapter.form, num_tokens),
    )


def check_fits(adapter: Adapter, edits: Edits, base: Mapping[str, Tensor]) -> None:
    """Raises ModelRejected naming the first module that the base has not, or has otherwise. Of a
    whole tensor only the rows may be others: classes, or words."""
    for path, tensor in edits.whole.items():
        found = base.get(path)
        if found and (len(found.shape), *found.shape[1:]) != (len(tensor.shape), *tensor.shape[1:]):
            raise _rejected(path, f"has shape {list(tensor.shape)}, not {list(found.shape)}")
    for path, parts in edits.parts.items():
        name = f"{path}.weight"
        found = edits.whole.get(name) or base.get(name)
        if found is None:
            raise _rejected(name, "is not in the base: it is an adapter of another model")
        if len(found.shape) != 2 or not _fits(parts, found.shape):
            raise _rejected(name, f"has shape {list(found.shape)} in the base, which does not fit")
        scale, bias = parts.get("ia3_l"), base.get(f"{path}.bias")
        if scale and bias and scale.shape[0] != 1 and bias.shape != scale.shape[:1]:
            raise _rejected(f"{path}.bias", f"has shape {list(bias.shape)}, which does not fit")


def check_alone(edits: Edits, base: Mapping[str, Tensor]) -> None:
    """Of an adapter whose model is configured as its base is. Raises ModelRejected for whole
    tensors that this model has not, such as a head of its own: they would be left out."""
    for path, tensor in edits.whole.items():
        found = base.get(path)
        if found is None or found.shape != tensor.shape:
            what = "is not in the base" if found is None else "has another shape in the base"
            raise _rejected(path, f"{what}: {_WANTED}")


def named_for(adapter: Adapter, base: Iterable[str]) -> Claim:
    """The claim of an adapter that does not know what names its base's files have: these may lack
    the prefix of the model below a head, or have it where the adapter was learned without one."""
    names, edits = set(base), edits_of(adapter)
    wanted = {f"{path}.weight" for path in edits.parts} or edits.whole.keys()
    if not wanted or wanted & names:
        return adapter.claim
    lacks = {name.partition(".")[0] + "." for name in wanted}
    if len(lacks) == 1 and {name.partition(".")[2] for name in wanted} <= names:
        return replace(adapter.claim, lacks=lacks.pop())
    for extra in sorted({name.partition(".")[0] + "." for name in names}):
        if {extra + name for name in wanted} <= names:
            return replace(adapter.claim, extra=extra)
    return adapter.claim


def _check_task(adapter: Adapter, facts: ModelFacts) -> None:
    """Raises ModelRejected where the model has another head than the one this was learned with."""
    task = adapter.config.find_word("task_type")
    wanted = _HEADS.get(task)
    others = [head for head in _HEADS.values() if head in facts.architecture]
    is_text = task in ("CAUSAL_LM", "SEQ_2_SEQ_LM")
    if (is_text and others) or (wanted is not None and wanted not in others):
        what = f"task_type {task} is not served by {facts.architecture or '?'}"
        raise ModelRejected(f"{adapters.CONFIG}: {what}: {_WANTED}")


def _fits(parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> bool:
    """Every dimension, by PEFT's own layout. Layers of GPT-2 lie turned round."""
    shapes = {part: tensor.shape for part, tensor in parts.items()}
    if "ia3_l" in shapes:
        return any(shapes["ia3_l"] in ((1, n), (n, 1)) for n in shape)
    if "bottleneck_up.weight" in shapes:
        down, up = shapes["bottleneck_down.weight"], shapes["bottleneck_up.weight"]
        if len(up) != 2 or down != up[::-1] or not down[0] or up[0] not in shape:
            return False
        return shapes["bottleneck_down.bias"] + shapes["bottleneck_up.bias"] == (down[0], up[0])
    a, b = shapes["lora_A"], shapes["lora_B"]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not a[0] or {b[0], a[1]} != set(shape):
        return False
    of_rank, of_rows = (a[0], 1), (b[0],)
    return (
        shapes.get("lora_E", of_rank) == of_rank
        and shapes.get("lora_magnitude_vector", of_rows) == of_rows
    )


def num_virtual(adapter: Adapter) -> int:
    """Tokens before every text. Raises ModelRejected."""
    if adapter.form not in (AdapterForm.TOKENS, AdapterForm.PREFIX):
        return 0
    return adapter.config.get_count("num_virtual_tokens", high=1 << 16)


def _check_prompt(adapter: Adapter, prompt: Tensor, facts: ModelFacts) -> int:
    """How many virtual tokens there are. Of a model with an encoder PEFT learns as many for the
    decoder, and then does not use them."""
    count, is_prefix = num_virtual(adapter), adapter.form is AdapterForm.PREFIX
    width = facts.hidden_size
    if is_prefix:
        width = 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim
        if facts.is_encoder_decoder:
            raise _rejected(PROMPT, "is a prefix of a model with an encoder: none is served")
    rows = {count, 2 * count} if facts.is_encoder_decoder else {count}
    if len(prompt.shape) != 2 or prompt.shape[1] != width or prompt.shape[0] not in rows:
        shape = list(prompt.shape)
        raise _rejected(PROMPT, f"has shape {shape}, the base wants {count} rows of {width}")
    if count >= facts.context_length:
        raise _rejected(PROMPT, f"leaves no room in {facts.context_length} tokens")
    return count


def _extra_bytes(adapter: Adapter, edits: Edits, base: Mapping[str, Tensor]) -> int:
    """Beside what the base takes: the adapter, and while it is merged the largest matrix, as it
    was, as it becomes, and what is added to it."""
    changed = [base[f"{path}.weight"] for path in edits.parts if f"{path}.weight" in base]
    largest = max((tensor.num_elements for tensor in changed), default=0)
    own = sum(tensor.num_elements for tensor in adapter.tensors)
    return ITEM_BYTES["float32"] * (2 * own + 4 * largest)


def _check_float(tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise _rejected(tensor.name, f"is of type {tensor.dtype}")


def _rejected(name: str, what: str) -> ModelRejected:
    return ModelRejected(f"{adapters.FOLDER}/{adapters.WEIGHTS}: {name[:200]} {what}")
