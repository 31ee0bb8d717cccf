"""The cheap siblings of a block, which predict how its output changes since the key frame.

A block is any module: one convolution, a residual block, a stage, the whole network. With x_0, z_0 its input and output
on the key frame, a student gives z_t two ways, which agree. `change` predicts z_t − z_0 and is zero for a still clip to
the bit; it is what trains. `fold` computes once per key frame all that depends on the key frame alone, and `follow`
gives z_t from that and from x_t; it is what runs.

Sources: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594), linear
blocks; non-linear blocks and copies on smaller frames are ours, see docs/delta.md.
"""

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from vidistill.students.delta.calls import (
    Call,
    batched,
    larger,
    leaves_named,
    map_outputs,
    name_leaves,
    resized,
    scaled_size,
    smaller,
)
from vidistill.students.delta.plan import StudentSpec
from vidistill.students.delta.separable import (
    bottleneck_rank,
    full_rank,
    is_convertible_layer,
    separable,
    start_from,
    without_bias,
)
from vidistill.students.student import State

START_DOUBT = 50.0  # a change of a seventh of the output's spread halves the key frame's correction


class BlockStudent(nn.Module, ABC):
    """What stands beside a block. Outputs are trees of tensors shaped as the block's own."""

    @abstractmethod
    def change(self, key: Call, now: Call, key_output: Any) -> Any:
        """The predicted z_t − z_0, without any memory of the key frame but its input."""

    @abstractmethod
    def fold(self, key: Call, key_output: Any) -> State:
        """All that the frames after the key frame need of it."""

    @abstractmethod
    def follow(self, now: Call, folded: State) -> Any:
        """z_t."""

    def start(self, block: nn.Module) -> None:
        """Starts the weights from the trained block's where that is possible."""

    def set_training(self) -> None:
        """Puts what trains from scratch, and only that, into training mode."""

    def fuse(self) -> None:
        """Fuses the student's own norms into its convolutions, for running."""

    is_scalable: ClassVar[bool] = False  # whether `scale_outputs` can be

    def scale_outputs(self, factor: Tensor) -> None:
        """Multiplies the predicted change of each output channel by a factor, for good. factor: (channels,)."""
        raise NotImplementedError


class LinearStudent(BlockStudent):
    """z_t = z_0 + g(x_t − x_0) with g linear and without a bias, so that z_t = g(x_t) + c, c = z_0 − g(x_0)."""

    def __init__(self, linear: nn.Module, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """g(x), at the scale it works on."""
        return self.linear(smaller(x, self.scale))

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        return self._sized(self(now.tensor - key.tensor), key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        return {"offset": key_output - self._sized(self(key.tensor), key_output)}

    def follow(self, now: Call, folded: State) -> Tensor:
        return self._sized(self(now.tensor), folded["offset"]) + folded["offset"]

    def start(self, block: nn.Module) -> None:
        assert is_convertible_layer(block)
        if isinstance(self.linear, nn.Sequential):
            start_from(self.linear, block)
        else:
            with torch.no_grad():
                self.last_kernel().copy_(block.weight)

    is_scalable = True

    def scale_outputs(self, factor: Tensor) -> None:
        self.last_kernel().mul_(factor[:, None, None, None])

    def last_kernel(self) -> Tensor:
        """The kernel of the last layer: scaling its first axis scales the student's output channels."""
        last = self.linear[-1] if isinstance(self.linear, nn.Sequential) else self.linear
        assert is_convertible_layer(last)
        return last.weight

    def _sized(self, x: Tensor, like: Tensor) -> Tensor:
        return larger(x, like) if self.scale < 1 else x


class Copy(BlockStudent):
    """z_t = c_t + w · (z_0 − c_0), c = up(f(down(x))), f the block's own copy: the key frame corrects the copy. [ours]

    w = 1 / (1 + d · |f_t − f_0|² / v) at each place, |·|² over channels, v the variance of z_0 over the frame, summed
    over channels: where the copy sees a change the correction is stale, and fades. d is learned; 0 would be the plain
    difference. Between a block's copy and the whole network on a smaller frame it is one formula. Both evaluations of f
    go through in one batch, or batch statistics would make a still clip move.
    """

    def __init__(self, block: nn.Module, scale: float) -> None:
        super().__init__()
        self.network = block
        self.scale = scale
        self.log_doubt = nn.Parameter(torch.tensor(math.log(START_DOUBT)))

    def change(self, key: Call, now: Call, key_output: Any) -> Any:
        both = batched(self._smaller(now, key_output), self._smaller(key, key_output))

        def one(found: Tensor, z_0: Tensor) -> Tensor:
            f_t, f_0 = found[: len(z_0)], found[len(z_0) :]
            doubted = 1 - self._trust(f_t, f_0, self._doubt(z_0))
            return larger(f_t - f_0, z_0) - larger(doubted, z_0) * (z_0 - larger(f_0, z_0))

        return map_outputs(one, self.network(*both.args, **both.kwargs), key_output)

    def fold(self, key: Call, key_output: Any) -> State:
        small = self._smaller(key, key_output)
        found = self.network(*small.args, **small.kwargs)
        offsets = map_outputs(lambda f_0, z_0: z_0 - larger(f_0, z_0), found, key_output)
        doubts = tree_map_only(Tensor, self._doubt, key_output)
        return name_leaves("offset", offsets) | name_leaves("coarse", found) | name_leaves("doubt", doubts)

    def follow(self, now: Call, folded: State) -> Any:
        offsets = leaves_named(folded, "offset")
        kept = zip(offsets, leaves_named(folded, "coarse"), leaves_named(folded, "doubt"), strict=True)

        def one(f_t: Tensor) -> Tensor:
            offset, f_0, doubt = next(kept)
            return larger(f_t, offset) + larger(self._trust(f_t, f_0, doubt), offset) * offset

        small = self._smaller(now, offsets)
        return tree_map_only(Tensor, one, self.network(*small.args, **small.kwargs))

    def start(self, block: nn.Module) -> None:
        self.network.load_state_dict(block.state_dict())

    def _doubt(self, z_0: Tensor) -> Tensor:
        """d / v, (B, 1, …)."""
        axis = _channel_axis(z_0)
        places = [i for i in range(1, z_0.ndim) if i != axis % z_0.ndim]
        variance = z_0.var(dim=places, correction=0, keepdim=True) if places else z_0.square()
        return self.log_doubt.exp() / variance.sum(dim=axis, keepdim=True).clamp(min=1e-12)

    @staticmethod
    def _trust(f_t: Tensor, f_0: Tensor, doubt: Tensor) -> Tensor:
        """w, with one channel."""
        return 1 / (1 + doubt * (f_t - f_0).square().sum(dim=_channel_axis(f_t), keepdim=True))

    def _smaller(self, call: Call, output: Any) -> Call:
        """The call on smaller images, of whole multiples of the block's stride: or its grid would not fit the frame.

        Several images, as of a network with branches, keep their ratios to the finest.
        """
        images = [x for x in call.tensors() if x.ndim == 4]
        if self.scale == 1 or not images:
            return call
        image = next((z for z in tree_leaves(output) if isinstance(z, Tensor) and z.ndim == 4), images[0])
        finest = max(images, key=lambda x: x.shape[-1])
        coarsest = min(image.shape[-1], *(x.shape[-1] for x in images))
        height, width = scaled_size(finest.shape, self.scale, multiple=max(1, round(finest.shape[-1] / coarsest)))

        def one(x: Tensor) -> Tensor:
            ratio = max(1, round(finest.shape[-1] / x.shape[-1]))
            return resized(x, (height // ratio, width // ratio)) if x.ndim == 4 else x

        return call.map(one)


class Bottleneck(BlockStudent):
    """A non-linear block: z_t = z_0 + g(x_0, x_t) − g(x_0, x_0). [ours; the paper has such blocks, its text we lack]

    g: 1×1 reduction of both frames to `channels` → 3×1 and 1×3 → 1×1 expansion, with normalisation and ReLU between,
    at the output's size times `scale`. The reduction of x_0, and all of g(x_0, x_0), fold into the state.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.from_key = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.from_now = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.vertical = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False)
        self.horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False)
        self.spatial_norm: nn.Module = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, out_channels, 1, bias=False)
        nn.init.zeros_(self.expand.weight)  # starts by holding the key frame's output

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        x_0, x_t = self._down(key.tensor, key_output), self._down(now.tensor, key_output)
        context = self.from_key(x_0)
        both = self._rest(torch.cat([context, context]) + self.from_now(torch.cat([x_t, x_0])))
        return larger(both[: len(x_t)] - both[len(x_t) :], key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        x_0 = self._down(key.tensor, key_output)
        context = self.from_key(x_0)
        still = self._rest(context + self.from_now(x_0))
        return {"offset": key_output - larger(still, key_output), "context": context}

    def follow(self, now: Call, folded: State) -> Tensor:
        offset, context = folded["offset"], folded["context"]
        found = self._rest(context + self.from_now(self._down(now.tensor, offset)))
        return larger(found, offset) + offset

    def set_training(self) -> None:
        self.train()

    @torch.no_grad()
    def fuse(self) -> None:
        if not isinstance(self.norm, nn.BatchNorm2d) or not isinstance(self.spatial_norm, nn.BatchNorm2d):
            return
        scale, shift = norm_as_affine(self.norm)
        for conv in (self.from_key, self.from_now):
            conv.weight.mul_(scale[:, None, None, None])
        self.from_now.bias = nn.Parameter(shift, requires_grad=False)
        scale, shift = norm_as_affine(self.spatial_norm)
        self.horizontal.weight.mul_(scale[:, None, None, None])
        self.horizontal.bias = nn.Parameter(shift, requires_grad=False)
        self.norm = self.spatial_norm = nn.Identity()

    is_scalable = True

    def scale_outputs(self, factor: Tensor) -> None:
        self.expand.weight.mul_(factor[:, None, None, None])

    def _rest(self, reduced: Tensor) -> Tensor:
        x = self.horizontal(self.vertical(F.relu(self.norm(reduced))))
        return self.expand(F.relu(self.spatial_norm(x)))

    def _down(self, x: Tensor, like: Tensor) -> Tensor:
        size = scaled_size(like.shape[-2:], self.scale)
        return x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size)


class Nothing(BlockStudent):
    """z_t = z_0: the block is skipped between key frames."""

    is_scalable = True

    def scale_outputs(self, factor: Tensor) -> None:
        pass

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        return torch.zeros_like(key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        return {"offset": key_output}

    def follow(self, now: Call, folded: State) -> Tensor:
        return folded["offset"]


def norm_as_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch normalisation in evaluation mode as factor and summand per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


def _channel_axis(x: Tensor) -> int:
    """Of an image the second axis, of anything else the last."""
    return 1 if x.ndim == 4 else -1


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
