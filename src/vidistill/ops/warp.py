"""Frames carried along a flow."""

import torch
from torch import Tensor
from torch.nn import functional as F


def warp_bilinear(frames: Tensor, flow: Tensor) -> Tensor:
    """`frames` sampled at every pixel's place plus its flow, bilinear, the border's pixels beyond it.

    frames: (B, C, H, W). flow: (B, 2, H, W), x and y in pixels, from the result's pixels into `frames`. Places are at
    least float32, whatever the flow is.
    """
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    height, width = frames.shape[-2:]
    columns = torch.arange(width, device=frames.device, dtype=flow.dtype)
    rows = torch.arange(height, device=frames.device, dtype=flow.dtype)[:, None]
    # pixel centre p is at (2p + 1) / length − 1 in grid_sample's coordinates
    x = (2 * (flow[:, 0] + columns) + 1) / width - 1
    y = (2 * (flow[:, 1] + rows) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)
    warped = F.grid_sample(frames.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(frames.dtype)
