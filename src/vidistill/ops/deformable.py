"""Modulated deformable convolution in plain tensor operations.

They run wherever torch does, export, and are counted as what they compute. torchvision's `deform_conv2d` gives the same
values (same layout of offsets), but needs its compiled operator, which is missing where its wheel was built for another
torch, and which neither ONNX export nor the counting of MACs knows. Ours keeps the sampled columns for the backward
pass: 9 C H W values per convolution, twice.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def deformable_convolution(x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, K, H, W): a k×k convolution of stride 1 that keeps the size, its taps moved by `offsets`, weighted by `mask`.

    x: (B, C, H, W); offsets: (B, 2·G·k², H, W) pixels, y before x, tap by tap, group by group; mask: (B, G·k², H, W);
    weight: (K, C, k, k), k odd. Group g of the offsets serves the g-th of G equal parts of the channels. Bilinear
    between pixels, 0 beyond the border. Places are at least float32, whatever the offsets are: beyond column 256, those
    of bfloat16 are two apart. Source: Zhu et al. 2019 (arXiv 1811.11168), eq. 1.
    """
    batch, channels, height, width = x.shape
    kernel = weight.shape[-1]
    taps = kernel**2
    groups = mask.shape[1] // taps
    grid = _grid(offsets.reshape(batch * groups, taps, 2, height, width), kernel)
    parts = x.reshape(batch * groups, channels // groups, height, width).to(grid.dtype)
    sampled = F.grid_sample(parts, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    columns = sampled.to(x.dtype).reshape(batch, groups, channels // groups, taps, height, width)
    columns = columns * mask.reshape(batch, groups, 1, taps, height, width)
    # one matrix product: (K, C·k²) @ (B, C·k², H·W)
    result = weight.reshape(-1, channels * taps) @ columns.reshape(batch, channels * taps, height * width)
    return result.reshape(batch, -1, height, width) + bias[:, None, None]


def _grid(offsets: Tensor, kernel: int) -> Tensor:
    """(N, k²·H, W, 2): where each tap looks, x before y, in grid_sample's coordinates. offsets: (N, k², 2, H, W)."""
    count, taps, _, height, width = offsets.shape
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    rows = torch.arange(height, device=offsets.device, dtype=offsets.dtype)[:, None]
    columns = torch.arange(width, device=offsets.device, dtype=offsets.dtype)
    tap = torch.arange(taps, device=offsets.device)[:, None, None]
    y = offsets[:, :, 0] + rows + (tap // kernel - kernel // 2)  # (N, k², H, W)
    x = offsets[:, :, 1] + columns + (tap % kernel - kernel // 2)
    # pixel centre p is at (2p + 1) / length − 1
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return grid.reshape(count, taps * height, width, 2)
