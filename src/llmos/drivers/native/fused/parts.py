"""The sizes, linears and norms of one model, named and switched by its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.drivers.native.fused.family import Family, Switch
from llmos.drivers.native.fused.spec import Activation, Linear, Norm, Unsupported
from llmos.drivers.native.fused.stored import Part, Stored

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.QUICK_GELU,
    "relu": Activation.RELU,
    "relu2": Activation.RELU2,
    "xielu": Activation.XIELU,
}
"""By Transformers' names."""


class Parts:
    """What layers and the ends of a decoder are made of."""

    def __init__(self, config: Any, family: Family, tensors: Mapping[str, tuple[int, ...]]) -> None:
        self.config = config
        self.family = family
        self.stored = Stored(tensors, family.base.split(".", maxsplit=1)[0])
        self.hidden_size = int(config.hidden_size)
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(config.num_key_value_heads) if family.grouped else self.num_heads
        own = getattr(config, "head_dim", None) if family.own_head_dim else None
        self.head_dim = int(own or self.hidden_size // self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise Unsupported(f"{self.num_heads} heads for {self.num_kv_heads} keys and values")
        if not family.own_head_dim and self.head_dim * self.num_heads != self.hidden_size:
            raise Unsupported(f"{self.num_heads} heads for a width of {self.hidden_size}")

    def linear(
        self,
        name: str,
        num_rows: int | None,
        num_columns: int,
        bias: Switch,
        part: Part | None = None,
    ) -> Linear:
        """`num_rows` out features, or a part of them; any number if that is None."""
        # GPT-2 stores all the weights of a layer transposed
        matrix = self.stored.matrix(
            f"{name}.weight", num_rows, num_columns, part, transposed=self.family.transposed
        )
        if not self.is_on(bias):
            return Linear(matrix)
        total = matrix.shape[0] if num_rows is None else num_rows
        return Linear(matrix, self.stored.vector(f"{name}.bias", (total,), part))

    def norm(self, name: str, shape: tuple[int, ...]) -> Norm:
        """Of the family's kind."""
        family = self.family
        eps = self._get(family.eps) if isinstance(family.eps, str) else family.eps
        weighted, biased = self.is_on(family.norm_weight), self.is_on(family.norm_bias)
        return Norm(
            kind=family.norm,
            eps=float(eps),
            weight=self.stored.vector(f"{name}.weight", shape) if weighted else None,
            bias=self.stored.vector(f"{name}.bias", shape) if biased else None,
            plus_one=family.plus_one,
        )

    def activation(self) -> Activation:
        """Raises Unsupported for one that no `Activation` is."""
        said = self._get(self.family.activation)
        activation = _ACTIVATIONS.get(said)
        if activation is None:
            raise Unsupported(f"the activation {str(said)[:80]} is not described")
        if activation is Activation.XIELU and self.family.gate is not None:
            raise Unsupported("xielu with a gate is not described")
        return activation

    def is_on(self, switch: Switch) -> bool:
        """What a switch says."""
        return switch if isinstance(switch, bool) else bool(self._get(switch))

    def find_number(self, name: str | None) -> float | None:
        """The value of a field that may be None, or may not exist for the family."""
        value = None if name is None else self._get(name)
        return None if value is None else float(value)

    def _get(self, name: str) -> Any:
        try:
            return getattr(self.config, name)
        except AttributeError as error:
            raise Unsupported(f"the config has no {name}") from error
