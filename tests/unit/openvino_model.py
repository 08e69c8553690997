"""A Llama's safetensors as an OpenVINO model with its state inside, as optimum-intel exports one.

Only for tests: whoever has a model converts it with optimum-intel, which brings its own versions of
half of what we use. Operation by operation what Transformers' LlamaForCausalLM computes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

SMALL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


class LlamaGraph:
    """Values are nodes. B rows of S new tokens, T with those before, H heads of D."""

    def __init__(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        import openvino
        from openvino import opset13

        self.ov, self.op = openvino, opset13
        self.config, self.weights = config, weights
        self.num_heads = config["num_attention_heads"]
        self.num_kv_heads = config.get("num_key_value_heads", self.num_heads)
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.num_heads
        self.sinks: list[Any] = []
        self.ids = self._input("input_ids", [-1, -1], np.int64)
        self.mask = self._input("attention_mask", [-1, -1], np.int64)
        self.positions = self._input("position_ids", [-1, -1], np.int64)
        self.beams = self._input("beam_idx", [-1], np.int32)

    def _input(self, name: str, shape: list[int], dtype: Any) -> Any:
        node = self.op.parameter(shape, dtype, name=name)
        node.output(0).get_tensor().set_names({name})
        return node

    def const(self, value: Any, dtype: Any = np.int64) -> Any:
        return self.op.constant(np.asarray(value, dtype=dtype))

    def linear(self, x: Any, name: str) -> Any:
        weight = self.const(self.weights[f"{name}.weight"], np.float32)
        return self.op.matmul(x, weight, False, True)

    def norm(self, x: Any, name: str) -> Any:
        op = self.op
        mean = op.reduce_mean(op.power(x, self.const(2, np.float32)), self.const([-1]), True)
        scale = op.sqrt(op.add(mean, self.const(self.config["rms_norm_eps"], np.float32)))
        weight = self.const(self.weights[f"{name}.weight"], np.float32)
        return op.multiply(op.divide(x, scale), weight)

    def model(self) -> Any:
        op, config = self.op, self.config
        embedding = self.const(self.weights["model.embed_tokens.weight"], np.float32)
        x = op.gather(embedding, op.convert(self.ids, "i32"), self.const(0, np.int32))
        cos, sin = self._rotation()
        bias = self._causal_bias()
        for layer in range(config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            attended = self._attention(
                self.norm(x, f"{name}.input_layernorm"), layer, cos, sin, bias
            )
            x = op.add(x, attended)
            y = self.norm(x, f"{name}.post_attention_layernorm")
            gate = op.swish(self.linear(y, f"{name}.mlp.gate_proj"))
            up = self.linear(y, f"{name}.mlp.up_proj")
            x = op.add(x, self.linear(op.multiply(gate, up), f"{name}.mlp.down_proj"))
        x = self.norm(x, "model.norm")
        head = "lm_head" if "lm_head.weight" in self.weights else "model.embed_tokens"
        logits = self.linear(x, head)
        logits.output(0).get_tensor().set_names({"logits"})
        inputs = [self.ids, self.mask, self.positions, self.beams]
        return self.ov.Model([op.result(logits, name="logits")], self.sinks, inputs, "llama")

    def _rotation(self) -> tuple[Any, Any]:
        op = self.op
        rope = self.config.get("rope_parameters") or self.config
        theta, size = float(rope.get("rope_theta", 10000.0)), self.head_dim
        inverse = theta ** (-np.arange(0, size, 2, dtype=np.float32) / size)
        places = op.unsqueeze(op.convert(self.positions, "f32"), self.const(-1))  # (B, S, 1)
        angles = op.multiply(places, self.const(inverse.reshape(1, 1, -1), np.float32))
        both = op.unsqueeze(op.concat([angles, angles], -1), self.const(1))  # (B, 1, S, D)
        return op.cos(both), op.sin(both)

    def _causal_bias(self) -> Any:
        """(B, 1, S, T): 0 where a token may look, else far below."""
        op = self.op
        num = op.gather(op.shape_of(self.mask), self.const(1), self.const(0))
        keys = op.range(self.const(0), num, self.const(1), "i64")
        seen = op.less_equal(keys, op.unsqueeze(self.positions, self.const(-1)))
        bias = op.select(seen, self.const(0, np.float32), self.const(-1e9, np.float32))
        return op.unsqueeze(bias, self.const(1))

    def _heads(self, x: Any, num: int) -> Any:
        shape = self.const([0, 0, num, self.head_dim])
        return self.op.transpose(self.op.reshape(x, shape, True), self.const([0, 2, 1, 3]))

    def _rotated(self, x: Any, cos: Any, sin: Any) -> Any:
        op, half = self.op, self.head_dim // 2
        first = op.slice(x, self.const([0]), self.const([half]), self.const([1]), self.const([3]))
        last = op.slice(
            x, self.const([half]), self.const([2**62]), self.const([1]), self.const([3])
        )
        turned = op.concat([op.multiply(last, self.const(-1, np.float32)), first], -1)
        return op.add(op.multiply(x, cos), op.multiply(turned, sin))

    def _kept(self, new: Any, name: str) -> Any:
        """A key or value of all tokens: (B, H, T, D)."""
        op = self.op
        rows = op.gather(op.shape_of(self.ids), self.const([0]), self.const(0))
        rest = [self.const([self.num_kv_heads]), self.const([0]), self.const([self.head_dim])]
        empty = op.broadcast(self.const(0, np.float32), op.concat([rows, *rest], 0))
        shape = self.ov.PartialShape([-1, self.num_kv_heads, -1, self.head_dim])
        info = self.ov.op.util.VariableInfo()
        info.data_shape, info.data_type, info.variable_id = shape, self.ov.Type.f32, name
        variable = self.ov.op.util.Variable(info)
        before = self.ov.op.read_value(empty, variable)
        whole = op.concat([op.gather(before, self.beams, self.const(0)), new], 2)
        self.sinks.append(self.ov.op.assign(whole, variable))
        return whole

    def _repeated(self, x: Any) -> Any:
        """A key or value for each head that shares it."""
        op, group = self.op, self.num_heads // self.num_kv_heads
        if group == 1:
            return x
        wide = op.unsqueeze(x, self.const(2))
        shape = self.const([1, 1, group, 1, 1])
        wide = op.broadcast(wide, shape, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(wide, self.const([0, self.num_heads, -1, self.head_dim]), True)

    def _attention(self, x: Any, layer: int, cos: Any, sin: Any, bias: Any) -> Any:
        op, name = self.op, f"model.layers.{layer}.self_attn"
        query = self._rotated(
            self._heads(self.linear(x, f"{name}.q_proj"), self.num_heads), cos, sin
        )
        key = self._heads(self.linear(x, f"{name}.k_proj"), self.num_kv_heads)
        value = self._heads(self.linear(x, f"{name}.v_proj"), self.num_kv_heads)
        key = self._repeated(self._kept(self._rotated(key, cos, sin), f"past.{layer}.key"))
        value = self._repeated(self._kept(value, f"past.{layer}.value"))
        scale = self.const(self.head_dim**-0.5, np.float32)
        mixed = op.scaled_dot_product_attention(query, key, value, bias, scale, causal=False)
        mixed = op.transpose(mixed, self.const([0, 2, 1, 3]))
        flat = op.reshape(mixed, self.const([0, 0, self.num_heads * self.head_dim]), True)
        return self.linear(flat, f"{name}.o_proj")


def convert(source: Path, target: Path) -> None:
    """A Llama of float32 safetensors in `source`."""
    import openvino
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    graph = LlamaGraph(config, load_file(source / "model.safetensors"))
    target.mkdir(exist_ok=True)
    openvino.save_model(graph.model(), target / "openvino_model.xml", compress_to_fp16=False)
    for name in SMALL:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
