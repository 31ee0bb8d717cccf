"""Optical flow between two frames, and what is carried along it: label maps, and tensors."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

FLOW_SOURCE = "OpenCV DIS medium"


@dataclass(frozen=True)
class Correspondence:
    """Where each pixel of frame t is in frame t+1. rows, columns: (H, W) of the nearest pixel; visible: (H, W)."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    visible: NDArray[np.bool_]

    def carry_back(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A label map (H, W) of frame t+1 in the pixels of frame t, nearest sampling; meaningless where not visible."""
        return labels[self.rows, self.columns]


def estimate_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 2) displacement (x, y) in pixels from `first` to `second`, RGB frames (H, W, 3); 0 below 16 pixels."""
    height, width = first.shape[:2]
    if min(height, width) < 16:  # DIS needs a pyramid of patches
        return np.zeros((height, width, 2), dtype=np.float32)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((height, width, 2), dtype=np.float32)
    return np.asarray(estimator.calc(greys[0], greys[1], start), dtype=np.float32)


def correspond(forward: NDArray[np.float32], backward: NDArray[np.float32]) -> Correspondence:
    """Correspondence along `forward`. A pixel is visible where `backward` leads back to it, inside the frame.

    forward, backward: (H, W, 2). The check is Sundaram, Brox & Keutzer's (2010): |f + b|² < 0.01 (|f|² + |b|²) + 0.5.
    """
    height, width = forward.shape[:2]
    grid_y, grid_x = np.mgrid[0:height, 0:width]
    columns = np.rint(grid_x + forward[..., 0]).astype(np.intp)
    rows = np.rint(grid_y + forward[..., 1]).astype(np.intp)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns.clip(0, width - 1), rows.clip(0, height - 1)
    back = backward[rows, columns]
    gap = ((forward + back) ** 2).sum(axis=-1)
    size = (forward**2).sum(axis=-1) + (back**2).sum(axis=-1)
    return Correspondence(rows, columns, inside & (gap < 0.01 * size + 0.5))


def estimate_correspondence(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Correspondence:
    """Correspondence of two RGB frames (H, W, 3), by flow estimated in both directions."""
    return correspond(estimate_flow(first, second), estimate_flow(second, first))


def warp_bilinear(frames: Tensor, flow: Tensor) -> Tensor:
    """(B, C, H, W): `frames` sampled at every pixel's place plus its flow, bilinear, the border continued.

    frames: (B, C, H, W); flow: (B, 2, H, W), x and y in pixels, from the result's pixels into `frames`. Places are at
    least float32, whatever the flow is: those of bfloat16 are more than a pixel apart in a wide frame.
    """
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    height, width = frames.shape[-2:]
    columns = torch.arange(width, device=frames.device, dtype=flow.dtype)
    rows = torch.arange(height, device=frames.device, dtype=flow.dtype)[:, None]
    # pixel centre p is at (2p + 1) / length − 1 in grid_sample's coordinates
    x = (2 * (flow[:, 0] + columns) + 1) / width - 1  # (B, H, W)
    y = (2 * (flow[:, 1] + rows) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)
    warped = F.grid_sample(frames.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(frames.dtype)
