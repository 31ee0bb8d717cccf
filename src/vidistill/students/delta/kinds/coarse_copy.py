"""The kind "copy": the block's own copy, on smaller frames where its scale is below 1."""

import math

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.ops.modules import copied, trainable
from vidistill.students.delta.calls import (
    Call,
    Tree,
    larger,
    leaves_named,
    map_outputs,
    name_leaves,
    resize_map,
    scaled_size,
    tensors_of,
)
from vidistill.students.delta.kinds.block_student import BlockStudent, StudentSpec
from vidistill.students.delta.kinds.linear import LinearStudent
from vidistill.students.delta.layers import ConvertibleLayer, is_convertible_layer, without_bias
from vidistill.students.state import State

START_DOUBT = 50.0  # a change of a seventh of the output's spread halves the key frame's correction


class CoarseCopy(BlockStudent):
    """z_t = c_t + w · (z_0 − c_0), c = up(f(down(x))), f the block's own copy: the key frame corrects the copy. [ours]

    w = 1 / (1 + d · |f_t − f_0|² / v) at each place, |·|² over channels, v the variance of z_0 over the frame, summed
    over channels: where the copy sees a change the correction is stale, and fades. d is learned; 0 would be the plain
    difference. Between a block's copy and the whole network on a smaller frame it is one formula. The copy of a single
    layer is linear, and needs no correction that fades: see `LayerCopy`.
    """

    takes_several = True

    def __init__(self, block: nn.Module, scale: float) -> None:
        super().__init__()
        self.network = block
        self.scale = scale
        self.log_doubt = nn.Parameter(torch.tensor(math.log(START_DOUBT)))

    @classmethod
    def make(cls, spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> BlockStudent:
        if is_convertible_layer(block):
            return LayerCopy(without_bias(block), spec.scale)
        return cls(trainable(copied(block)), spec.scale)

    def change(self, key: Call, now: Call, key_output: Tree) -> Tree:
        small_key, small_now = self._smaller(key, key_output), self._smaller(now, key_output)
        key_tensors = iter(small_key.tensors())
        # (2B, …), both frames in one batch: with batch statistics of their own a still clip would move
        both = small_now.map(lambda x_t: torch.cat([x_t, next(key_tensors)]))

        def change_of(outputs: Tensor, z_0: Tensor) -> Tensor:
            f_t, f_0 = outputs[: len(z_0)], outputs[len(z_0) :]
            doubted = 1 - self._trust(f_t, f_0, self._doubt(z_0))
            return larger(f_t - f_0, z_0) - larger(doubted, z_0) * (z_0 - larger(f_0, z_0))

        return map_outputs(change_of, self.network(*both.args, **both.kwargs), key_output)

    def fold(self, key: Call, key_output: Tree) -> State:
        small = self._smaller(key, key_output)
        coarse = self.network(*small.args, **small.kwargs)
        offsets = map_outputs(lambda f_0, z_0: z_0 - larger(f_0, z_0), coarse, key_output)
        doubts = tree_map_only(Tensor, self._doubt, key_output)
        return name_leaves("offset", offsets) | name_leaves("coarse", coarse) | name_leaves("doubt", doubts)

    def follow(self, now: Call, folded: State) -> Tree:
        offsets = leaves_named(folded, "offset")
        kept = zip(offsets, leaves_named(folded, "coarse"), leaves_named(folded, "doubt"), strict=True)

        def corrected(f_t: Tensor) -> Tensor:
            offset, f_0, doubt = next(kept)
            return larger(f_t, offset) + larger(self._trust(f_t, f_0, doubt), offset) * offset

        small = self._smaller(now, offsets)
        return tree_map_only(Tensor, corrected, self.network(*small.args, **small.kwargs))

    def start(self, block: nn.Module) -> None:
        self.network.load_state_dict(block.state_dict())

    @property
    def distils_features(self) -> bool:
        return self.scale < 1

    @property
    def is_full_cost(self) -> bool:
        return self.scale == 1

    @property
    def block_copy(self) -> nn.Module:
        return self.network

    def _doubt(self, z_0: Tensor) -> Tensor:
        """d / v, (B, 1, …)."""
        axis = _channel_axis(z_0)
        places = [i for i in range(1, z_0.ndim) if i != axis % z_0.ndim]
        variance = z_0.var(dim=places, correction=0, keepdim=True) if places else z_0.square()
        return self.log_doubt.exp() / variance.sum(dim=axis, keepdim=True).clamp(min=1e-12)

    @staticmethod
    def _trust(f_t: Tensor, f_0: Tensor, doubt: Tensor) -> Tensor:
        """w, (B, 1, h, w) of images, with one channel at the last axis of anything else."""
        return 1 / (1 + doubt * (f_t - f_0).square().sum(dim=_channel_axis(f_t), keepdim=True))

    def _smaller(self, call: Call, output: Tree) -> Call:
        """The call on smaller images, of whole multiples of the block's stride: or its grid would not fit the frame.

        Several images, as of a network with branches, keep their ratios to the finest.
        """
        images = [x for x in call.tensors() if x.ndim == 4]
        if self.scale == 1 or not images:
            return call
        image = next((z for z in tensors_of(output) if z.ndim == 4), images[0])
        finest = max(images, key=lambda x: x.shape[-1])
        coarsest = min(image.shape[-1], *(x.shape[-1] for x in images))
        height, width = scaled_size(finest.shape, self.scale, multiple=max(1, round(finest.shape[-1] / coarsest)))

        def smaller_by_ratio(x: Tensor) -> Tensor:
            ratio = max(1, round(finest.shape[-1] / x.shape[-1]))
            return resize_map(x, (height // ratio, width // ratio)) if x.ndim == 4 else x

        return call.map(smaller_by_ratio)


class LayerCopy(LinearStudent):
    """A layer's copy: g is the layer without its bias, so that the key frame's correction always holds."""

    linear: ConvertibleLayer

    @property
    def last_layer(self) -> ConvertibleLayer:
        return self.linear

    @torch.no_grad()
    def start(self, block: nn.Module) -> None:
        assert is_convertible_layer(block)
        self.linear.weight.copy_(block.weight)

    @property
    def is_full_cost(self) -> bool:
        return self.scale == 1


def _channel_axis(x: Tensor) -> int:
    """The second axis of an image, the last of anything else."""
    return 1 if x.ndim == 4 else -1
