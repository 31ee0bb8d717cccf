"""Features of regions of a frame, from a pyramid of levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.ops.boxes import areas

CANONICAL_LEVEL, CANONICAL_SIDE = 4.0, 224.0  # 224 pixels are pooled at stride 2⁴: Lin et al. 2017, equation 1


def pool_regions(
    features: Sequence[Tensor], boxes: Tensor, *, strides: Sequence[int], output_size: int = 7, samples: int = 2
) -> Tensor:
    """(B, P, C, S, S) features of P regions in each frame, each from the level of its size, S = output_size.

    features: (B, C, H, W) of each level; boxes: (B, P, 4) in pixels of the frame; strides: of the levels, each twice
    the one before; nothing is pooled from further levels of one stride (torchvision's MobileNet has two).
    Each of S × S bins is the mean of samples² bilinear samples: RoIAlign, He et al., "Mask R-CNN", 2017 (arXiv
    1703.06870), not shifted by half a pixel, as torchvision's multi-scale pooling has it; the level is equation 1 of
    Lin et al., "Feature Pyramid Networks", 2017 (arXiv 1612.03144). No gradient reaches the boxes.

    A bin is one weighted sum of rows of a table of all pixels, so shapes are static and nothing is held per sample.
    """
    batch, num_regions = boxes.shape[:2]
    channels = features[0].shape[1]
    table = torch.cat([level.flatten(2) for level in features], dim=2).transpose(1, 2)  # (B, pixels, C)
    rows, weights = _samples(features, boxes.float(), _levels(boxes, strides), strides, output_size, samples)
    rows = rows + torch.arange(batch, device=boxes.device)[:, None, None, None, None] * table.shape[1]
    bins = batch * num_regions * output_size**2
    rows, weights = rows.reshape(bins, -1), weights.reshape(bins, -1).to(table.dtype)  # (bins, 4 · samples²)
    table = table.reshape(-1, channels)
    if torch.compiler.is_exporting():  # to ONNX embedding_bag is a loop over the bags, twenty times slower
        pooled = (weights[:, None] @ F.embedding(rows, table)).squeeze(1)
    else:
        pooled = F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
    return pooled.reshape(batch, num_regions, output_size, output_size, channels).permute(0, 1, 4, 2, 3)


@torch.no_grad()
def _levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """(B, P) index of each region's level."""
    first, last = round(math.log2(strides[0])), round(math.log2(strides[-1]))
    octaves = torch.log2(areas(boxes).clamp(min=0).sqrt() / CANONICAL_SIDE + 1e-8)
    return (torch.floor(CANONICAL_LEVEL + octaves + 1e-6) - first).clamp(0, last - first).long()


@torch.no_grad()
def _samples(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, strides: Sequence[int], output_size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Rows of the table of pixels and their weights, both (B, P, S, S, 4 · samples²)."""
    heights = torch.tensor([f.shape[2] for f in features], device=boxes.device)[levels]
    widths = torch.tensor([f.shape[3] for f in features], device=boxes.device)[levels]
    sizes = [f.shape[2] * f.shape[3] for f in features]
    begins = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))], device=boxes.device)[levels]
    scaled = boxes / torch.tensor(strides, device=boxes.device)[levels][..., None]
    y = _along(scaled[..., 1], scaled[..., 3], heights, output_size, samples)
    x = _along(scaled[..., 0], scaled[..., 2], widths, output_size, samples)
    # each of the four neighbours of a sample: y is (B, P, S, 1, samples, 1), x (B, P, 1, S, 1, samples)
    rows = [
        begins[..., None, None, None, None] + iy[..., :, None, :, None] * widths[..., None, None, None, None]
        + ix[..., None, :, None, :] for iy, _ in y for ix, _ in x
    ]  # fmt: skip
    weights = [wy[..., :, None, :, None] * wx[..., None, :, None, :] / samples**2 for _, wy in y for _, wx in x]
    return torch.stack(rows, dim=-1).flatten(-3), torch.stack(weights, dim=-1).flatten(-3)


def _along(
    low: Tensor, high: Tensor, length: Tensor, output_size: int, samples: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both neighbours of each sample along one axis, with their weights, all (B, P, S, samples).

    low, high: (B, P) edges of the regions in pixels of their level; length: (B, P) of the level. A sample more than one
    pixel outside the level is 0; nearer to it, the edge's.
    """
    size = (high - low).clamp(min=1)  # a region is at least one pixel of its level
    steps = torch.arange(output_size * samples, device=low.device, dtype=low.dtype) + 0.5
    place = low[..., None] + size[..., None] * steps / (output_size * samples)
    last = (length - 1)[..., None]
    inside = (place >= -1) & (place <= length[..., None])
    place = torch.minimum(place.clamp(min=0), last.to(place.dtype))
    left = torch.minimum(place.floor().long(), last)
    right = torch.minimum(left + 1, last)
    share = place - left
    shape = (*low.shape, output_size, samples)
    near, far = (1 - share) * inside, share * inside
    return (left.reshape(shape), near.reshape(shape)), (right.reshape(shape), far.reshape(shape))
