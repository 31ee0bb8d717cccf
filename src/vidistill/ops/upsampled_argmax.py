"""The class of every pixel of a frame, from logits on a coarser grid, computed where it is in doubt. [ours]"""

import torch
from torch import Tensor
from torch.nn import functional as F


def upsampled_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8: the arg-max of logits (B, K, h, w) resized bilinearly to `size` (height, width).

    A resized pixel is a weighted mean of four places of the grid. Where one class is the largest at all four it is the
    largest in their mean too, so that only the cells between classes are resized: the values are those of resizing all,
    but for rounding in ties. Where the sizes are no whole multiple of the grid, all of it is resized.
    """
    batch, _, height, width = logits.shape
    factor = size[0] // height
    if factor == 1 or size != (height * factor, width * factor):
        if size != (height, width):
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        # on CPU, torch's max over channels is many times faster than its argmax
        return logits.max(dim=1).indices.to(torch.uint8)
    classes = logits.max(dim=1).indices.to(torch.uint8)
    # (B, h + 2, w + 2), the edge repeated, as resizing has it: cell (i, j) lies between places i, i + 1 and j, j + 1
    padded = F.pad(classes[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].to(torch.uint8)
    first = padded[:, :-1, :-1]
    is_mixed = (padded[:, :-1, 1:] != first) | (padded[:, 1:, :-1] != first) | (padded[:, 1:, 1:] != first)
    blocks = first[:, :, None, :, None].expand(-1, -1, factor, -1, factor).contiguous()
    b, i, j = is_mixed.nonzero(as_tuple=True)
    rows = [(i - 1).clamp(min=0), i.clamp(max=height - 1)]
    columns = [(j - 1).clamp(min=0), j.clamp(max=width - 1)]
    channels_last = logits.permute(0, 2, 3, 1)
    corners = torch.stack([channels_last[b, y, x] for y in rows for x in columns], dim=-1)  # (M, K, 4)
    inside = (corners @ _weights(factor).to(corners)).max(dim=1).indices.to(torch.uint8)  # (M, factor²)
    blocks[b, i, :, j, :] = inside.unflatten(1, (factor, factor))
    fine = blocks.reshape(batch, (height + 1) * factor, (width + 1) * factor)
    start = (factor + 1) // 2  # a cell begins half a place before the grid
    return fine[:, start : start + size[0], start : start + size[1]].contiguous()


def _weights(factor: int) -> Tensor:
    """(4, factor²): how much each pixel of a cell has of its corners, top left to bottom right."""
    along = (torch.arange(factor) + (0 if factor % 2 else 0.5)) / factor
    pair = torch.stack([1 - along, along])  # (2, factor)
    return torch.einsum("ay,bx->abyx", pair, pair).reshape(4, factor**2)
