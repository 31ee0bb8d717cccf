"""The contract of detectors: a dense network, and detections made from its outputs outside it.

A key-frame scheme converts the network and keeps its state; decoding and non-maximum suppression, which have no state,
follow it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.ops.boxes import clip_boxes, decode_boxes, suppress

Outputs = dict[str, Tensor]

PADDED_TO = 32  # pixels; frames for torchvision's pyramids are padded to a multiple of it
MAX_CANDIDATES = 1000  # in a frame, before suppression; torchvision takes as many from each level [ours]


class Detections(TypedDict):
    """What a detector sees in one frame, best first."""

    boxes: Tensor  # (M, 4) xyxy pixels
    scores: Tensor  # (M,) 0…1
    labels: Tensor  # (M,) int64, from 0


class Detector(nn.Module, ABC):
    """A detector of `num_classes` kinds of things in normalised frames; subclass it for a detector of your own.

    It declares (see `declares`) `leave`: by custom the first convolution, prediction layers, squeeze-excitation and box
    head; and `backbone_path`. Depthwise convolutions are left in any case.
    """

    num_classes: int
    leave: tuple[str, ...] = ()
    backbone_path: str = "backbone"

    @abstractmethod
    def forward(self, frames: Tensor) -> Outputs:
        """Dense outputs.

        Args:
            frames: (B, 3, H, W), normalised.

        Returns:
            A dict of tensors, every one with the batch first:
            `logits` (B, N, K), whose sigmoid is the probability of each class at each of N anchors; of a network with
            proposals (B, N, 1), the probability of anything. `regression` (B, N, 4), see `encode_boxes`. `anchors`
            (B, N, 4), xyxy pixels, float32 in any precision, the same in every frame of one size. `centreness`
            (B, N, 1), where the network has it.
            A network with proposals adds `proposals` (B, P, 4), xyxy pixels, zeros where there are fewer;
            `region_logits` (B, P, K + 1), of a softmax, background first; `region_regression` (B, P, K, 4), relative to
            the proposals; and its pyramid, `features.0`, `features.1` …, from which its `regions` judges other boxes.
        """

    def detect(self, outputs: Outputs, size: tuple[int, int]) -> list[Detections]:
        """The detections in each frame of `outputs`; size: the frames' (height, width)."""
        return detections(outputs, size=size)


def detections(
    outputs: Outputs,
    *,
    size: tuple[int, int],
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> list[Detections]:
    """A detector's outputs as detections in each frame: decoded, suppressed, best first.

    Boxes of different classes do not suppress each other. One set of defaults for all detectors [ours], that of
    torchvision's Faster R-CNN; its RetinaNet keeps 300 detections, its FCOS has 0.2 and 0.6, its SSD 0.01, 0.45 and
    200.

    Args:
        outputs: of a `Detector`, for B frames.
        size: (height, width) of the frames in pixels; boxes are clipped to it.
        score_threshold: least score that is kept, 0…1.
        iou_threshold: of two boxes of one class that overlap more, the worse is dropped, 0…1.
        max_detections: most that a frame keeps.

    Returns:
        One `Detections` a frame; a frame without any has empty tensors.
    """
    scores, boxes = _scored_regions(outputs) if "region_logits" in outputs else _scored_anchors(outputs)
    num_classes = scores.shape[2]
    most = min(MAX_CANDIDATES, scores[0].numel())
    best, places = scores.flatten(1).topk(most, dim=1)  # (B, M), M candidates
    labels = places % num_classes
    rows = places // num_classes if boxes.shape[1] == scores.shape[1] else places  # a box for all classes, or one each
    chosen = boxes.gather(1, rows[..., None].expand(-1, -1, 4))
    chosen = clip_boxes(chosen, size) * (best > score_threshold)[..., None]  # an empty box is never kept
    kept = suppress(chosen, best, labels, iou_threshold, max_detections)  # (B, max_detections), filled up with -1
    results: list[Detections] = []
    for image, indices in enumerate(kept):
        indices = indices[indices >= 0]
        results.append(
            {"boxes": chosen[image, indices], "scores": best[image, indices], "labels": labels[image, indices]}
        )
    return results


def _scored_anchors(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """(B, N, K) scores and (B, N, 4) boxes."""
    scores = outputs["logits"].float().sigmoid()
    if "centreness" in outputs:
        scores = (scores * outputs["centreness"].float().sigmoid()).sqrt()
    return scores, decode_boxes(outputs["regression"].float(), outputs["anchors"].float())


def _scored_regions(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """(B, P, K) scores and (B, P · K, 4) boxes, one a class; an empty proposal scores 0."""
    proposals = outputs["proposals"].float()
    scores = outputs["region_logits"].float().softmax(dim=2)[..., 1:] * is_proposal(proposals)[..., None]
    boxes = decode_boxes(outputs["region_regression"].float(), proposals[:, :, None])
    return scores, boxes.flatten(1, 2)


def is_proposal(proposals: Tensor) -> Tensor:
    """(B, P) which of the proposals (B, P, 4) are real; the others are empty and fill them up to P."""
    return (proposals[..., 2:] > proposals[..., :2]).all(dim=-1)


def flatten_level(predictions: Tensor, channels: int) -> Tensor:
    """(B, H · W · A, channels) of a level's predictions (B, A · channels, H, W)."""
    batch, _, height, width = predictions.shape
    split = predictions.reshape(batch, -1, channels, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(batch, -1, channels)


def grid_anchors(shapes: Sequence[Tensor], strides: Sequence[int], like: Tensor) -> Tensor:
    """(N, 4) anchors, xyxy pixels, at the cells of a pyramid's levels, row by row, from the finest level.

    shapes: of each level, (A, 4) boxes about a cell's centre. strides: of each level, pixels from cell to cell. like:
    the finest level (B, C, H, W); every level is half as large as the last, rounded up.
    """
    height, width = like.shape[-2:]
    anchors = []
    for shape, stride in zip(shapes, strides, strict=True):
        y, x = (torch.arange(n, device=like.device, dtype=torch.float32) + 0.5 for n in (height, width))
        ys, xs = torch.meshgrid(y * stride, x * stride, indexing="ij")
        centres = torch.stack([xs, ys, xs, ys], dim=-1).reshape(-1, 1, 4)
        anchors.append((centres + shape.to(like.device)).reshape(-1, 4))
        height, width = -(-height // 2), -(-width // 2)
    return torch.cat(anchors)


def pad_frames(frames: Tensor, multiple: int) -> Tensor:
    """Frames (B, 3, H, W) with zeros at the right and bottom, up to sides that are multiples."""
    height, width = frames.shape[-2:]
    return F.pad(frames, (0, -width % multiple, 0, -height % multiple))


def library_anchors(generator: nn.Module, frames: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """(B, N, 4) float32 anchors of one of torchvision's generators for frames (B, 3, H, W) and their pyramid.

    It takes the frame's side divided by the level's, rounded down, for a level's stride, so frames must be padded to a
    multiple of the largest stride for anchors at the right places.
    """
    from torchvision.models.detection.image_list import ImageList

    shapes = [level.new_empty(1, 1, *level.shape[-2:], dtype=torch.float32) for level in levels]
    anchors = generator(ImageList(frames, [(frames.shape[-2], frames.shape[-1])]), shapes)[0]
    return anchors.expand(len(frames), -1, -1)
