"""Multiply-accumulates of a call, counted by torch on the operations that really run, functional ones included."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidistill.ops.modules import copied

_Module = TypeVar("_Module", bound=nn.Module)
_Result = TypeVar("_Result")

LAYER_OPERATIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.mm, torch.ops.aten.addmm)


def count_macs(function: Callable[..., object], *arguments: object) -> int:
    """Multiply-accumulates of the convolutions and matrix products in `function(*arguments)`.

    Everything else, normalisation for example, counts 0. On the meta device, see `on_meta`, nothing is computed.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return counter.get_total_flops() // 2  # torch counts the product and the sum


def layer_macs(function: Callable[..., object], *arguments: object) -> int:
    """As `count_macs`, of convolutions and linear layers alone: not of products of two activations, as in attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    flops = counter.get_flop_counts().get("Global", {})  # absent where nothing was counted
    return sum(count for operation, count in flops.items() if operation in LAYER_OPERATIONS) // 2


def on_meta(module: _Module) -> _Module:
    """A copy of the module on the meta device: it has shapes but no values, and computes nothing."""
    return copied(module).to("meta")


def without_values(function: Callable[[_Module, str], _Result], module: _Module) -> _Result:
    """`function(module, device)` with a copy on the meta device; with the module itself, on its own, where that fails.

    It fails for a network that looks at values, or holds tensors that are neither parameters nor buffers.
    """
    try:
        return function(on_meta(module), "meta")
    except Exception:  # whatever looks at values may fail in any way
        parameter = next(module.parameters(), None)
        return function(module, "cpu" if parameter is None else str(parameter.device))
