"""The kind "separable": two thin layers in the place of one, started from the layer's own weights.

Source: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594), candidate b
of a linear block, and its initialisation by spatial singular value decomposition.
"""

import torch
from torch import Tensor, nn

from vidistill.students.delta.calls import Call, Tree
from vidistill.students.delta.kinds.block_student import Policy, StudentSpec
from vidistill.students.delta.kinds.linear import LinearStudent
from vidistill.students.delta.layers import ConvertibleLayer, channels, is_convertible_layer


class Separable(LinearStudent):
    """g is a separable bottleneck without a non-linearity, of a convolution or linear layer."""

    has_rank = True

    linear: nn.Sequential

    @classmethod
    def resolve(cls, spec: StudentSpec, block: nn.Module, call: Call, output: Tree) -> StudentSpec | str:
        """The rank asked for, at most the full one, else that of the policy."""
        resolved = super().resolve(spec, block, call, output)
        if isinstance(resolved, str):
            return resolved
        if not is_convertible_layer(block):
            return f"the kind {spec.kind} is for a convolution or a linear layer only"
        if spec.rank is not None:
            rank = min(spec.rank, full_rank(block))
        else:
            rank = bottleneck_rank(block, reduction=spec.reduction, policy=spec.policy)
        if isinstance(block, nn.Conv2d) and rank % block.groups:
            return f"its {block.groups} groups do not divide the bottleneck's {rank} channels"
        return spec.ranked(rank)

    @classmethod
    def make(cls, spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> "Separable":
        assert is_convertible_layer(block)
        assert spec.rank is not None
        return cls(separable(block, spec.rank), spec.scale).like(block)

    @property
    def last_layer(self) -> ConvertibleLayer:
        last = self.linear[-1]
        assert is_convertible_layer(last)
        return last

    def start(self, block: nn.Module) -> None:
        assert is_convertible_layer(block)
        start_from(self.linear, block)


def bottleneck_rank(layer: ConvertibleLayer, *, reduction: int, policy: Policy) -> int:
    """The bottleneck's channels C_r; 0 where the policy gives none.

    "out": C_out // reduction where C_out > reduction; "min": min(C_in, C_out) // reduction where that is at least 1.
    """
    in_channels, out_channels = channels(layer)
    if policy == "out":
        return out_channels // reduction if out_channels > reduction else 0
    return min(in_channels, out_channels) // reduction


def full_rank(layer: ConvertibleLayer) -> int:
    """The rank at which the separable bottleneck reproduces an ungrouped layer: min(C_in·k_h, C_out·k_w)."""
    in_channels, out_channels = channels(layer)
    height, width = layer.kernel_size if isinstance(layer, nn.Conv2d) else (1, 1)
    return min(in_channels * height, out_channels * width)


def separable(layer: ConvertibleLayer, rank: int) -> nn.Sequential:
    """(k_h × 1, C_in → rank), then (1 × k_w, rank → C_out); for a linear layer two linear layers.

    Stride, padding and dilation are split over the two, groups stay on the first. Every mode of padding is linear and
    separable, and so kept. The change of a linear map has no bias, so there is none. Weights are uninitialised: see
    `start_from`.
    """
    in_channels, out_channels = channels(layer)
    if isinstance(layer, nn.Linear):
        return nn.Sequential(nn.Linear(in_channels, rank, bias=False), nn.Linear(rank, out_channels, bias=False))
    (k_h, k_w), (s_h, s_w), (d_h, d_w) = layer.kernel_size, layer.stride, layer.dilation
    # a 1-wide kernel reads single columns, so all of the stride can already be taken by the first convolution
    first_stride, second_stride = ((s_h, s_w), (1, 1)) if k_w == 1 else ((s_h, 1), (1, s_w))
    first_padding: str | tuple[int, int]
    second_padding: str | tuple[int, int]
    if isinstance(layer.padding, str):
        first_padding = second_padding = layer.padding
    else:  # by the same rule: the convolution that strides over the width must see its padding
        p_h, p_w = layer.padding[0], layer.padding[1]
        first_padding, second_padding = ((p_h, p_w), (0, 0)) if k_w == 1 else ((p_h, 0), (0, p_w))
    reduce = nn.Conv2d(
        in_channels, rank, (k_h, 1), stride=first_stride, padding=first_padding, dilation=(d_h, 1),
        groups=layer.groups, bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    expand = nn.Conv2d(
        rank, out_channels, (1, k_w), stride=second_stride, padding=second_padding, dilation=(1, d_w), bias=False,
        padding_mode=layer.padding_mode,
    )  # fmt: skip
    return nn.Sequential(reduce, expand)


@torch.no_grad()
def start_from(student: nn.Sequential, layer: ConvertibleLayer) -> None:
    """Starts the bottleneck from the layer's weights: the best separable approximation of its rank.

    The kernel (n, c, h, w) as a matrix (c·h, n·w), its singular values split as √S to both sides. A grouped layer has
    no such form: there the second convolution starts at 0, so that the key frame's output is held. [ours]
    """
    reduce, expand = _kernel(student[0]), _kernel(student[1])
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        nn.init.zeros_(expand)
        return
    kernel = layer.weight.double()
    if isinstance(layer, nn.Linear):
        kernel = kernel[:, :, None, None]  # (n, c) → (n, c, 1, 1)
    n, c, h, w = kernel.shape
    rank = reduce.shape[0]
    left, right = _truncated(kernel.permute(1, 2, 0, 3).reshape(c * h, n * w), rank)
    reduce.copy_(left.T.reshape(rank, c, h, 1).reshape(reduce.shape))
    expand.copy_(right.reshape(rank, n, w).permute(1, 0, 2).reshape(expand.shape))


def _kernel(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.weight


def _truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rows, rank) and (rank, columns) whose product is the best approximation; 0 beyond the matrix's own rank."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    spare = max(0, rank - len(values))
    left = nn.functional.pad(left[:, :rank] * root, (0, spare))
    right = nn.functional.pad(root[:, None] * right[:rank], (0, 0, 0, spare))
    return left, right
