"""Adapters: a few weights that were learned beside a base's, and what they say they are.

They lie in a version's folder beside the base's own files, in `adapter/`: `adapter_config.json`
and `adapter_model.safetensors` as PEFT writes them, and `llmos.json`, which names the base by the
digests of its weights. Two kinds of adapters are ours: PEFT has no bottlenecks, and a new head
alone is nothing to it. Nothing here is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from llmos.abi.registry import AdapterForm
from llmos.errors import ModelRejected
from llmos.weights.adapterconfig import check_config
from llmos.weights.folder import INDEX, SINGLE, is_weights
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.safetensors import Tensor, read_tensors

FOLDER = "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CLAIM = "llmos.json"
FILES = (CONFIG, WEIGHTS, CLAIM)

BOTTLENECK, HEAD = "BOTTLENECK", "HEAD"
"""Kinds of ours, where PEFT says `peft_type`."""

_KINDS = {
    "LORA": ("lora", AdapterForm.MERGED),
    "ADALORA": ("adalora", AdapterForm.MERGED),
    "IA3": ("ia3", AdapterForm.MERGED),
    HEAD: ("head", AdapterForm.MERGED),
    "PROMPT_TUNING": ("prompt", AdapterForm.TOKENS),
    "P_TUNING": ("p-tuning", AdapterForm.TOKENS),
    "PREFIX_TUNING": ("prefix", AdapterForm.PREFIX),
    BOTTLENECK: ("bottleneck", AdapterForm.BOTTLENECK),
}
"""Method and form, by PEFT's name."""


class Claim(msgspec.Struct, frozen=True):
    """What an adapter says of its base. `base` is its name, for people; `weights` its files of
    weights with their digests, which are what counts. Names of tensors in these files lack what
    `lacks` says in front, or have `extra` there, beside those of the model's own modules.
    `method` is how it was learned, where that says more than its kind does (`qlora`)."""

    base: str
    weights: dict[str, str]
    lacks: str = ""
    extra: str = ""
    method: str = ""

    def path_of(self, name: str) -> str:
        """The module's own name of a tensor of the base's files."""
        if self.extra:
            return name.removeprefix(self.extra)
        return self.lacks + name


class Adapter(msgspec.Struct, frozen=True):
    """A checked one. `tensors` are of its file, in order."""

    method: str
    form: AdapterForm
    kind: str
    claim: Claim
    config: Fields
    tensors: list[Tensor]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.end - tensor.begin for tensor in self.tensors)

    def path_of(self, name: str) -> str:
        """A tensor's name of the adapter's file, without what PEFT puts in front of it."""
        prompts = self.form in (AdapterForm.TOKENS, AdapterForm.PREFIX)
        return name.removeprefix("base_model." if prompts else "base_model.model.")


def has_adapter(names: Collection[str]) -> bool:
    """Whether these names of a folder's files are of a base and an adapter: one that says so. What
    else lies in a folder of that name is none of ours."""
    return f"{FOLDER}/{CLAIM}" in names


def is_adapted(folder: Path) -> bool:
    """The same of a version's folder."""
    return (folder / FOLDER / CLAIM).is_file()


def read_claim(folder: Path) -> Claim:
    """Of the folder of an adapter's own files. Raises ModelRejected."""
    values = read_object(folder / CLAIM, MAX_CONFIG_BYTES)
    try:
        claim = msgspec.convert(values, Claim)
    except msgspec.ValidationError as error:
        raise ModelRejected(f"{CLAIM}: {error}") from None
    if not claim.weights.keys() & {SINGLE, INDEX}:
        raise ModelRejected(f"{CLAIM}: names no weights of a base: neither {SINGLE} nor {INDEX}")
    for name in claim.weights:
        if name != INDEX and not is_weights(name):
            raise ModelRejected(f"{CLAIM}: {name[:200]!r} is no file of weights")
    return claim


def read_adapter(folder: Path, claim: Claim | None = None) -> Adapter:
    """Of the folder of an adapter's own files, or of PEFT's and a claim made for them: headers,
    never tensor data. Raises ModelRejected."""
    for name in FILES if claim is None else (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelRejected(f"{FOLDER}/{name}: missing")
    config = Fields(CONFIG, read_object(folder / CONFIG, MAX_CONFIG_BYTES))
    kind = config.find_word("peft_type")
    if kind not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise ModelRejected(f"{CONFIG}: an adapter of type {kind or '?'} is none of {known}")
    check_config(config, kind)
    method, form = _KINDS[kind]
    if kind == "LORA" and config.flag("use_dora"):
        method = "dora"
    claim = claim or read_claim(folder)
    tensors = read_tensors(folder / WEIGHTS)
    return Adapter(claim.method or method, form, kind, claim, config, tensors)
