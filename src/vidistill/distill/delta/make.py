"""A student as a recipe asks for it, on a given block: whether there can be one, and the student itself."""

import copy
from typing import Any

from torch import Tensor, nn

from vidistill.distill.delta.calls import Call
from vidistill.distill.delta.plan import StudentSpec
from vidistill.distill.delta.separable import bottleneck_rank, full_rank, is_convertible_layer, separable, without_bias
from vidistill.distill.delta.students import BlockStudent, Bottleneck, Copy, LinearStudent, Nothing


def make_student(spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> BlockStudent:
    """A student of `block` with weights that `start` may still set. channels: of the block's input and output.

    spec must have its rank resolved, see `resolve`. The block itself is not kept, nor changed.
    """
    if spec.kind == "nothing":
        return Nothing()
    if spec.kind == "bottleneck":
        assert spec.rank is not None
        return _like(block, Bottleneck(*channels, spec.rank, spec.scale))
    if not is_convertible_layer(block):
        return Copy(copy.deepcopy(block).requires_grad_(True), spec.scale)
    if spec.kind == "copy":
        return _like(block, LinearStudent(without_bias(block), spec.scale))
    assert spec.rank is not None
    return _like(block, LinearStudent(separable(block, spec.rank), spec.scale))


def resolve(spec: StudentSpec, block: nn.Module, call: Call, output: Any) -> StudentSpec | str:
    """The spec with its rank decided for this block, or why the block cannot have such a student."""
    if isinstance(block, nn.Conv2d) and block.groups == block.in_channels and block.groups > 1:
        return "depthwise"
    images = all(tensor.ndim == 4 for tensor in call.tensors())
    is_single = len(call.tensors()) == 1 and isinstance(output, Tensor)
    if not is_single and spec.kind != "copy":
        return f"takes or returns several tensors, which no {spec.kind} student can"
    if spec.scale < 1 and not images:
        return "its input is no image, so there is no smaller one"
    if spec.kind == "bottleneck":
        if not images or output.ndim != 4:
            return "its input or output is no image, which a bottleneck student needs"
        rank = spec.rank or min(call.tensor.shape[1], output.shape[1]) // spec.reduction
        return _ranked(spec, rank)
    if spec.kind == "separable":
        return _resolve_separable(spec, block)
    return StudentSpec(spec.kind, scale=spec.scale)


def _resolve_separable(spec: StudentSpec, block: nn.Module) -> StudentSpec | str:
    if not is_convertible_layer(block):
        return "a separable student is for a convolution or a linear layer only"
    if spec.rank is not None:
        return _ranked(spec, min(spec.rank, full_rank(block)))
    rank = bottleneck_rank(block, reduction=spec.reduction, policy=spec.policy)
    if isinstance(block, nn.Conv2d) and rank % block.groups:
        return f"its {block.groups} groups do not divide the bottleneck's {rank} channels"
    return _ranked(spec, rank)


def _ranked(spec: StudentSpec, rank: int) -> StudentSpec | str:
    if rank < 1:
        return f"too few channels for a reduction of {spec.reduction}"
    return StudentSpec(spec.kind, spec.reduction, spec.policy, rank, spec.scale)


def _like(block: nn.Module, student: BlockStudent) -> BlockStudent:
    """The student on the block's device and in its precision."""
    weight = next(iter(block.parameters()), None)
    return student if weight is None else student.to(weight.device, weight.dtype)
