"""Boxes as tensors: overlap, coding against anchors, matching, non-maximum suppression, and rows of labelled boxes.

A box is its edges in pixels: (x1, y1, x2, y2), "xyxy". Plain torch throughout, so that all of it runs on any device, on
meta tensors, and where torchvision's compiled operators are missing; tests hold it to torchvision's definitions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_LOG_SCALE = math.log(1000 / 16)  # log of a decoded side over its anchor's: Detectron's, and torchvision's
BACKGROUND, BETWEEN = -1, -2  # what `match_anchors` and `match_points` give an anchor without a box

# Rows hold the boxes of a frame as one tensor (M, 6): the four edges, then
CLASS, SCORE = 4, 5  # the columns of class and score
COLUMNS = 6
FILLER, NOT_ANNOTATED = -1, -2  # the classes of a row that fills up, and of the one row of a frame without annotation


def areas(boxes: Tensor) -> Tensor:
    """(…,) areas of boxes (…, 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """(…, N, M) intersection over union of boxes (…, N, 4) and (…, M, 4); 0 where both are empty."""
    shared, union = _shared_and_union(first, second)
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(shared.dtype).tiny), shared)


def _shared_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(…, N, M) areas that boxes share, and that they cover together. In place, x and y apart: that is faster."""
    x1, y1, x2, y2 = first.movedim(-1, 0)[..., :, None].contiguous()
    u1, v1, u2, v2 = second.movedim(-1, 0)[..., None, :].contiguous()
    width = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    height = torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    shared = width.mul_(height)
    return shared, (areas(first)[..., :, None] + areas(second)[..., None, :]).sub_(shared)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(…, 4) offsets that turn anchors into boxes: (Δx / w, Δy / h, log width ratio, log height ratio).

    Ren et al., "Faster R-CNN", 2015 (arXiv 1506.01497), equation 2; no further weights.
    """
    size, anchor_size = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / (2 * anchor_size)
    return torch.cat([shift, (size / anchor_size).log()], dim=-1)


def decode_boxes(regression: Tensor, anchors: Tensor) -> Tensor:
    """(…, 4) boxes from offsets and anchors, the inverse of `encode_boxes`; a side grows at most 62.5 times."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + regression[..., :2] * anchor_size
    half = regression[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() * anchor_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(…, 4) the parts of boxes (…, 4) inside a frame of `size` (height, width)."""
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def match_anchors(
    anchors: Tensor, boxes: Tensor, *, foreground: float = 0.5, background: float = 0.4, best: bool = True
) -> Tensor:
    """(N,) for each anchor, the index of the box that it overlaps most.

    anchors: (N, 4); boxes: (M, 4). The overlap must be `foreground` or more: BACKGROUND (−1) where it is below
    `background`, BETWEEN (−2) otherwise. best: every box also gets the anchors that overlap it most, however little.
    Ren et al. 2015, section 3.1.2; Lin et al., "Focal Loss", 2017 (arXiv 1708.02002), section 4.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    shared = overlaps(boxes, anchors)  # (M, N)
    most, matched = shared.max(dim=0)
    matches = torch.where(most >= foreground, matched, BETWEEN)
    matches = torch.where(most < background, BACKGROUND, matches)
    if best:
        is_best = (shared == shared.max(dim=1, keepdim=True).values).any(dim=0)
        matches = torch.where(is_best, matched, matches)
    return matches


def match_points(anchors: Tensor, boxes: Tensor, *, radius: float = 1.5) -> Tensor:
    """(N,) for each point, the index of the box that it is responsible for, BACKGROUND (−1) without one.

    anchors: (N, 4) squares as large as their stride; a point is the centre of its square. boxes: (M, 4). A point is
    responsible for a box that it lies in, less than `radius` strides from the box's centre along each axis, if the
    farthest side is 4 to 8 strides away (any nearer one on the finest level, any farther one on the coarsest); among
    several, for the smallest. Tian et al., "FCOS", 2019 (arXiv 1904.01355), with the centre sampling of its extension.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    points, strides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (points[:, None] - centres).abs().amax(dim=2) < radius * strides[:, None]  # (N, M)
    sides = torch.cat([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], dim=2)  # (N, M, 4) distances
    farthest = sides.amax(dim=2)
    least = torch.where(strides == strides.min(), 0.0, 4 * strides)
    most = torch.where(strides == strides.max(), torch.inf, 8 * strides)
    fits = near & (sides.amin(dim=2) > 0) & (farthest > least[:, None]) & (farthest < most[:, None])
    smallest, matched = torch.where(fits, areas(boxes), torch.inf).min(dim=1)
    return torch.where(smallest.isfinite(), matched, BACKGROUND)


@torch.library.custom_op("vidistill::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, num_kept: int) -> Tensor:
    """(B, num_kept) indices of the boxes that greedy non-maximum suppression keeps, best first, then −1.

    boxes: (B, N, 4); scores: (B, N); groups: (B, N), boxes of different groups do not suppress each other. Empty boxes
    are never kept. One operator of static shape, so that a network with proposals compiles, exports and counts its cost
    without values.

    A box falls if it overlaps a kept one of higher score by more than the threshold. Each round decides for all boxes
    at once; rounds repeat until nothing changes. That is the greedy answer, as box k is right after k rounds at most.
    """
    kept = torch.full((len(boxes), num_kept), -1, dtype=torch.int64, device=boxes.device)
    for image in range(len(boxes)):
        solid = (boxes[image, :, 2:] > boxes[image, :, :2]).all(dim=1)
        order = scores[image].argsort(descending=True, stable=True)
        order = order[solid[order]]
        sorted_boxes, group = boxes[image, order].float(), groups[image, order]
        shared, union = _shared_and_union(sorted_boxes, sorted_boxes)
        # (n, n), 1 where row's box, were it kept, would suppress column's
        falls = ((shared > iou_threshold * union) & (group[:, None] == group)).triu_(diagonal=1).float()
        keeps = torch.ones_like(order, dtype=torch.bool)
        before = torch.zeros_like(keeps)
        while not torch.equal(keeps, before):
            keeps, before = keeps.float() @ falls == 0, keeps
        best = order[keeps][:num_kept]
        kept[image, : len(best)] = best
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, num_kept: int) -> Tensor:
    return boxes.new_empty((boxes.shape[0], num_kept), dtype=torch.int64)


def make_rows(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """(N, 6) float32 rows of boxes (N, 4), classes (N,) and scores (N,)."""
    return torch.cat([boxes.float(), labels.float()[:, None], scores.float()[:, None]], dim=1)


def not_annotated(size: tuple[int, int]) -> Tensor:
    """(1, 6) the rows of a frame of `size` (height, width) without annotation: one, around the whole frame."""
    return torch.tensor([[0.0, 0.0, size[1], size[0], NOT_ANNOTATED, 0.0]])


def stack_rows(frames: Sequence[Tensor]) -> Tensor:
    """(N, M, 6) rows of N frames (M_i, 6), filled up to the largest M_i, M."""
    most = max(len(rows) for rows in frames)
    filled = frames[0].new_zeros(len(frames), most, COLUMNS)
    filled[..., CLASS] = FILLER
    for place, rows in zip(filled, frames, strict=True):
        place[: len(rows)] = rows
    return filled


def is_annotated(rows: Tensor) -> Tensor:
    """(…,) whether the frames of rows (…, M, 6) were annotated, perhaps without a box."""
    return (rows[..., CLASS] != NOT_ANNOTATED).all(dim=-1)


def boxes_in(rows: Tensor) -> Tensor:
    """(N, 6) the rows of one frame (M, 6) that are boxes."""
    return rows[rows[:, CLASS] >= 0]
