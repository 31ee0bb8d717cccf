"""Multiply-accumulates of a call, counted on the operations that really run."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

M = TypeVar("M", bound=nn.Module)


T = TypeVar("T")


LAYER_KINDS = (torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.mm, torch.ops.aten.addmm)


def count_macs(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-accumulates of a call's convolutions and matrix products; normalisation and the like count 0.

    Counted by torch on the operations that really run, functional ones included. Nothing is computed where modules
    and arguments are on the meta device, see `on_meta`.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return counter.get_total_flops() // 2


def layer_macs(function: Callable[..., Any], *arguments: Any) -> int:
    """As `count_macs`, of convolutions and linear layers alone: not of products of two activations, as in attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return sum(flops for kind, flops in counter.get_flop_counts()["Global"].items() if kind in LAYER_KINDS) // 2


def on_meta(module: M) -> M:
    """A copy of the module that has shapes but no values, and computes nothing."""
    return copy.deepcopy(module).to("meta")


def without_values(function: Callable[[M, str], T], module: M) -> T:
    """function(module, device) on the meta device; where that cannot be, on the module's own.

    It cannot where a network looks at values, or holds tensors that are neither parameters nor buffers.
    """
    try:
        return function(on_meta(module), "meta")
    except RuntimeError:
        parameter = next(module.parameters(), None)
        return function(module, "cpu" if parameter is None else str(parameter.device))
