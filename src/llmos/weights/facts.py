"""What a model folder says about its model."""

from __future__ import annotations

import msgspec

from llmos.abi.registry import AdapterForm, LoadCost
from llmos.weights.dtypes import ITEM_BYTES
from llmos.weights.processor import loaded_dtype


class Adapted(msgspec.Struct, frozen=True):
    """How an adapter was learned and what it adds; `num_tokens` virtual ones to every text."""

    method: str
    form: AdapterForm
    num_tokens: int = 0


class ModelFacts(msgspec.Struct, frozen=True):
    """Facts read from a checked model folder; a driver is chosen by them.

    `architecture` is the config's first architecture (`LlamaForCausalLM`), of a GGUF file
    `general.architecture` (`llama`); `layer_types` its
    attention kind per layer (`full_attention`, `sliding_attention` …; empty: the config does not
    say). `dtype` is the type the model loads in where the device computes with it (`float32`,
    `bfloat16`, `float16`, `float64`), of a GGUF file the type that most of it is stored in.
    `kv_dtype` is the type of keys and values, empty: that of the loaded weights.
    `weights_bytes` counts tensor data in the files, `footprint_bytes` is an upper bound of what a
    replica needs besides KV. `tied`: the output projection is the embedding. `quantization` is the
    method's name, with the bits for our own (`llmos-int8`), empty for none. `files` are the weight
    files, in reading order. `loads` are the types it can be loaded in, with what each takes.
    `keeps_kv`: a request keeps keys and values of its own. `labels` are the names of its classes;
    `pools`: the folder says how hidden states become a vector. `kinds`: what it can be asked for,
    of a model that says so itself. `adapter`: of a base with an adapter beside it.
    """

    format: str
    architecture: str
    model_type: str
    dtype: str
    num_parameters: int
    context_length: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    weights_bytes: int
    footprint_bytes: int
    tied: bool
    has_tokenizer: bool
    has_chat_template: bool
    files: list[str]
    layer_types: list[str] = []
    sliding_window: int | None = None
    is_encoder_decoder: bool = False
    quantization: str = ""
    license: str = ""
    loads: dict[str, LoadCost] = {}
    kv_dtype: str = ""
    keeps_kv: bool = True
    labels: list[str] = []
    pools: bool = False
    kinds: list[str] = []
    adapter: Adapted | None = None

    @property
    def stored_dtype(self) -> str:
        """What the files hold most of: `int8` or `int4` where they are quantized, else `dtype`."""
        return self.quantization.removeprefix("llmos-") if self.is_ours else self.dtype

    @property
    def is_ours(self) -> bool:
        """Quantized, in the form that `llmos.weights.stored` reads."""
        return self.quantization.startswith("llmos-")

    @property
    def kv_bytes_per_token(self) -> int:
        """Upper bound of key and value bytes of one token over all layers, as loaded here.

        Layers with a sliding window hold at most `sliding_window` tokens; here they count in full.
        """
        if not self.keeps_kv:
            return 0
        # pages of the native engine hold whole vectors of sixteen
        size = self.head_dim if self.kv_dtype else -(-self.head_dim // 16) * 16
        per_layer = 2 * self.num_kv_heads * size
        return self.num_layers * per_layer * ITEM_BYTES[self.kv_dtype or loaded_dtype(self.dtype)]
