"""Boxes of frames as one tensor, which batches carry and streams give: a row is left, top, right, bottom, class, score.

Frames of a batch have different numbers of boxes, so rows of class `FILLER` fill them up. A frame that nobody looked at
is not one that shows nothing: it has a row of class `NOT_ANNOTATED`, the frame itself, and no others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

COLUMNS = 6
CLASS, SCORE = 4, 5
FILLER, NOT_ANNOTATED = -1, -2


def make_rows(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """(N, 6) float32 rows of N boxes (N, 4) xyxy, classes (N,) and scores (N,)."""
    return torch.cat([boxes.float(), labels.float()[:, None], scores.float()[:, None]], dim=1)


def not_annotated(size: tuple[int, int]) -> Tensor:
    """(1, 6), all there is of a frame of `size` (height, width) without annotation."""
    return torch.tensor([[0.0, 0.0, size[1], size[0], NOT_ANNOTATED, 0.0]])


def stack_rows(frames: Sequence[Tensor]) -> Tensor:
    """(N, M, 6) rows of N frames (M_i, 6), filled up to the most of any, M."""
    most = max(len(rows) for rows in frames)
    filled = frames[0].new_zeros(len(frames), most, COLUMNS)
    filled[..., CLASS] = FILLER
    for place, rows in zip(filled, frames, strict=True):
        place[: len(rows)] = rows
    return filled


def is_annotated(rows: Tensor) -> Tensor:
    """(…,) whether frames of rows (…, M, 6) were annotated, perhaps with no box at all."""
    return (rows[..., CLASS] != NOT_ANNOTATED).all(dim=-1)


def boxes_in(rows: Tensor) -> Tensor:
    """(N, 6) the rows of one frame (M, 6) that are boxes."""
    return rows[rows[:, CLASS] >= 0]
