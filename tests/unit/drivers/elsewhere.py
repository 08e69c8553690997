"""A stand-in for a device that is not here: real numbers, held as if the host could not see them.

Its tensors say that they are on `meta`. Whatever a device would not do is an error: an operation
that meets a tensor of host memory, a float64 (MPS has none). Whenever the host learns a number, or
waits, it is counted: on a device each time is a stop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
MAKERS = {
    *(torch.tensor, torch.zeros, torch.ones, torch.empty, torch.arange),
    *(torch.zeros_like, torch.ones_like, torch.empty_like),
}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Elsewhere(torch.Tensor):
    """Wraps a tensor of host memory."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type[Elsewhere], held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE,
            storage_offset=held.storage_offset(),
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Device(TorchFunctionMode):
    """While it is on, what is made for `DEVICE` is held here. `num_stops`: of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.num_stops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.get("device")
        if func in MAKERS and wanted is not None and torch.device(wanted) == DEVICE:
            made = func(*args, **(kwargs | {"device": "cpu"}))
            # a copy from pageable memory that torch waits for
            self.num_stops += func is torch.tensor
            return _there(made)
        if func in (torch.Tensor.to, torch.nn.Module.to) and DEVICE in args:
            self.num_stops += not kwargs.get("non_blocking", False)
            return _there(args[0].clone())
        if func in (
            torch.Tensor.tolist,
            torch.Tensor.item,
            torch.Tensor.cpu,
            torch.Tensor.__bool__,
        ):
            (tensor,) = args
            if isinstance(tensor, Elsewhere):
                self.num_stops += 1
                return func(tensor.held.clone())
        is_attention = func is torch.nn.functional.scaled_dot_product_attention
        if is_attention and isinstance(args[0], Elsewhere):
            return _run(func, args, kwargs)  # one operation there, of many parts here
        return func(*args, **kwargs)


def _there(held: torch.Tensor) -> torch.Tensor:
    if held.dtype is torch.float64:
        raise AssertionError("MPS has no float64")
    return Elsewhere(held)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    if func in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default):
        raise AssertionError(f"{func} stops the host")
    flat, _ = tree_flatten((args, kwargs))
    for value in flat:
        stays = isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere)
        if stays and value.dim() and func not in MOVES:
            raise AssertionError(f"{func} meets a tensor of the host")
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func is torch.ops.aten.copy_.default or func.__name__.split(".")[0].endswith("_"):
        return args[0]
    return tree_map(lambda value: _there(value) if isinstance(value, torch.Tensor) else value, out)


def _held(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value == DEVICE else value
    return value.held if isinstance(value, Elsewhere) else value


def move(model: torch.nn.Module) -> torch.nn.Module:
    """All parameters and buffers of a model, tied ones once."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                there = made.get(id(parameter))
                if there is None:
                    there = torch.nn.Parameter(Elsewhere(parameter.data), requires_grad=False)
                    made[id(parameter)] = there
                module._parameters[name] = there
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Elsewhere(buffer)
    return model


@contextlib.contextmanager
def stops(device: Device) -> Iterator[list[int]]:
    """How often the host stops meanwhile, in the list's only element afterwards."""
    before = device.num_stops
    counted = [0]
    yield counted
    counted[0] = device.num_stops - before
