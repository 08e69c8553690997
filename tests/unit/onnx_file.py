"""ONNX files, field by field: what the reader must take, and what it must not."""

from __future__ import annotations


def varint(value: int) -> bytes:
    made = b""
    while value >= 0x80:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def field(tag: int, data: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(data)) + data


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def value(name: str) -> bytes:
    return field(1, name.encode())


def tensor(name: str, dims: list[int], more: bytes = b"") -> bytes:
    return b"".join(number(1, size) for size in dims) + field(8, name.encode()) + more


def graph(inputs: list[bytes], outputs: list[bytes], weights: list[bytes]) -> bytes:
    parts = [(11, inputs), (12, outputs), (5, weights)]
    return b"".join(field(tag, one) for tag, ones in parts for one in ones)


def model(of_graph: bytes) -> bytes:
    return number(1, 8) + field(7, of_graph)


FLOAT, INT64 = 1, 7


def typed(name: str, kind: int, dims: list[str]) -> bytes:
    """An input or output with a type, its sizes free."""
    shape = b"".join(field(1, field(2, dim.encode())) for dim in dims)
    return value(name) + field(2, field(1, number(1, kind) + field(2, shape)))


def make_embedder(vectors: list[list[float]]) -> bytes:
    """A whole model that an engine loads: each id's vector is its hidden state."""
    import numpy as np

    raw = np.array(vectors, dtype="<f4")
    weights = tensor("w", list(raw.shape), number(2, FLOAT) + field(9, raw.tobytes()))
    node = field(1, b"w") + field(1, b"input_ids") + field(2, b"last_hidden_state")
    node += field(4, b"Gather")
    inputs = [typed("input_ids", INT64, ["b", "l"])]
    outputs = [typed("last_hidden_state", FLOAT, ["b", "l", "h"])]
    whole = field(1, node) + field(2, b"g") + graph(inputs, outputs, [weights])
    return model(whole) + field(8, number(2, 17))
