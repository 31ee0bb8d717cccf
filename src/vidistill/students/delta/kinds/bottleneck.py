"""The kind "bottleneck": a small non-linear network that sees the key frame's input and this frame's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.students.delta.calls import Call, Tree, larger, scaled_size
from vidistill.students.delta.kinds.block_student import BlockStudent, StudentSpec
from vidistill.students.delta.layers import norm_as_affine
from vidistill.students.state import State


class TwoFrameBottleneck(BlockStudent):
    """A non-linear block: z_t = z_0 + g(x_0, x_t) − g(x_0, x_0). [ours; the paper has such blocks, its text we lack]

    g: 1×1 reduction of both frames to `channels` → 3×1 and 1×3 → 1×1 expansion, with normalisation and ReLU between,
    at the output's size times `scale`. The reduction of x_0, and all of g(x_0, x_0), fold into the state.
    """

    has_rank = True
    is_scalable = True

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

    @classmethod
    def resolve(cls, spec: StudentSpec, block: nn.Module, call: Call, output: Tree) -> StudentSpec | str:
        """The rank asked for, else the smaller of input and output channels divided by γ, whatever the policy."""
        resolved = super().resolve(spec, block, call, output)
        if isinstance(resolved, str):
            return resolved
        if call.tensor.ndim != 4 or output.ndim != 4:
            return f"its input or output is not an image, which the kind {spec.kind} needs"
        return spec.ranked(spec.rank or min(call.tensor.shape[1], output.shape[1]) // spec.reduction)

    @classmethod
    def make(cls, spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> "TwoFrameBottleneck":
        assert spec.rank is not None
        return cls(*channels, spec.rank, spec.scale).like(block)

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        x_0, x_t = self._down(key.tensor, key_output), self._down(now.tensor, key_output)
        context = self.from_key(x_0)
        # (2B, …), both frames in one batch: with batch statistics of their own a still clip would move
        both = self._rest(torch.cat([context, context]) + self.from_now(torch.cat([x_t, x_0])))
        return larger(both[: len(x_t)] - both[len(x_t) :], key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        x_0 = self._down(key.tensor, key_output)
        context = self.from_key(x_0)
        still = self._rest(context + self.from_now(x_0))
        return {"offset": key_output - larger(still, key_output), "context": context}

    def follow(self, now: Call, folded: State) -> Tensor:
        offset, context = folded["offset"], folded["context"]
        moved = self._rest(context + self.from_now(self._down(now.tensor, offset)))
        return larger(moved, offset) + offset

    def set_training(self) -> None:
        self.train()

    @torch.no_grad()
    def fuse(self) -> None:
        if not isinstance(self.norm, nn.BatchNorm2d) or not isinstance(self.spatial_norm, nn.BatchNorm2d):
            return
        scale, shift = norm_as_affine(self.norm)
        for conv in (self.from_key, self.from_now):
            conv.weight.mul_(scale[:, None, None, None])
        self.from_now.bias = nn.Parameter(shift, requires_grad=False)  # of one of the two, since they are summed
        scale, shift = norm_as_affine(self.spatial_norm)
        self.horizontal.weight.mul_(scale[:, None, None, None])
        self.horizontal.bias = nn.Parameter(shift, requires_grad=False)
        self.norm = self.spatial_norm = nn.Identity()

    def scale_outputs(self, factor: Tensor) -> None:
        self.expand.weight.mul_(factor[:, None, None, None])

    def _rest(self, reduced: Tensor) -> Tensor:
        """g without its reductions: (B, rank, h, w) → (B, C_out, h, w)."""
        x = self.horizontal(self.vertical(F.relu(self.norm(reduced))))
        return self.expand(F.relu(self.spatial_norm(x)))

    def _down(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, C_in, h, w), the output's size times `scale`."""
        size = scaled_size(like.shape, self.scale)
        return x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size)
