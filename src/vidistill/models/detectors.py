"""What every detector promises: a dense network, and detections made of its outputs outside of it.

Between the two a key-frame scheme keeps its state: the network is what converts, and decoding and non-maximum
suppression, which have no state, follow it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.ops.boxes import clip_boxes, decode_boxes, suppress

Outputs = dict[str, Tensor]

PADDED_TO = 32  # pixels; torchvision's pyramids, whose frames are padded to a multiple of it
MAX_CANDIDATES = 1000  # of a frame, before suppression; torchvision takes as many of each level [ours]


class Detections(TypedDict):
    """What a detector finds in one frame, best first."""

    boxes: Tensor  # (M, 4) xyxy pixels
    scores: Tensor  # (M,) 0…1
    labels: Tensor  # (M,) int64, from 0


class Detector(nn.Module, ABC):
    """A detector of `num_classes` things in normalised frames.

    leave: path patterns of what delta distillation leaves as it is, beside depthwise convolutions: first convolution,
    prediction layers, squeeze-excitation, box head. backbone_path: of what published weights of a backbone are for.
    """

    num_classes: int
    leave: tuple[str, ...] = ()
    backbone_path: str = "backbone"

    @abstractmethod
    def forward(self, frames: Tensor) -> Outputs:
        """Dense outputs of frames (B, 3, H, W), every tensor with the batch first.

        logits: (B, N, K), the sigmoid of which is the probability of each class at each of N anchors; of a network with
        proposals (B, N, 1), that of anything. regression: (B, N, 4), see `encode_boxes`. anchors: (B, N, 4) pixels,
        float32 in any precision, the same in every frame of one size. centreness: (B, N, 1), where the network has
        it. A network with proposals adds proposals: (B, P, 4) pixels, zeros where there are fewer; region_logits:
        (B, P, K + 1), of a softmax, background first; region_regression: (B, P, K, 4), relative to the proposals; and
        its pyramid, features.0, features.1 …, from which its `regions` judges other boxes.
        """

    def detect(self, outputs: Outputs, size: tuple[int, int]) -> list[Detections]:
        """What is seen in each frame of `size` (height, width), which `outputs` are of."""
        return detections(outputs, size=size)


def detections(
    outputs: Outputs,
    *,
    size: tuple[int, int],
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> list[Detections]:
    """What a detector's outputs say of each frame of `size` (height, width): decoded, suppressed, best first.

    Boxes of different classes do not suppress each other. One set of defaults for all detectors [ours], Faster R-CNN's
    of torchvision; its RetinaNet keeps 300 detections, its FCOS has 0.2 and 0.6, its SSD 0.01, 0.45 and 200.
    A frame without any detection gives empty tensors.
    """
    scores, boxes = _scored_regions(outputs) if "region_logits" in outputs else _scored_anchors(outputs)
    num_classes = scores.shape[2]
    most = min(MAX_CANDIDATES, scores[0].numel())
    best, places = scores.flatten(1).topk(most, dim=1)
    labels = places % num_classes
    chosen = _gather(boxes, places // num_classes if boxes.shape[1] == scores.shape[1] else places)
    chosen = clip_boxes(chosen, size) * (best > score_threshold)[..., None]  # an empty box is never kept
    kept = suppress(chosen, best, labels, iou_threshold, max_detections)
    found: list[Detections] = []
    for image, indices in enumerate(kept):
        indices = indices[indices >= 0]
        found.append(
            {"boxes": chosen[image, indices], "scores": best[image, indices], "labels": labels[image, indices]}
        )
    return found


def _scored_anchors(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """(B, N, K) scores and (B, N, 4) boxes."""
    scores = outputs["logits"].float().sigmoid()
    if "centreness" in outputs:
        scores = (scores * outputs["centreness"].float().sigmoid()).sqrt()
    return scores, decode_boxes(outputs["regression"].float(), outputs["anchors"].float())


def _scored_regions(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """(B, P, K) scores and (B, P · K, 4) boxes, one a class; a proposal that is none scores 0."""
    proposals = outputs["proposals"].float()
    scores = outputs["region_logits"].float().softmax(dim=2)[..., 1:] * is_proposal(proposals)[..., None]
    boxes = decode_boxes(outputs["region_regression"].float(), proposals[:, :, None])
    return scores, boxes.flatten(1, 2)


def is_proposal(proposals: Tensor) -> Tensor:
    """(B, P) which of the proposals (B, P, 4) are any, and not what fills them up to P."""
    return (proposals[..., 2:] > proposals[..., :2]).all(dim=-1)


def _gather(values: Tensor, places: Tensor) -> Tensor:
    """(B, M, 4) rows of values (B, N, 4) at places (B, M)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def flatten_level(predictions: Tensor, channels: int) -> Tensor:
    """(B, H · W · A, channels) of a level's predictions (B, A · channels, H, W)."""
    batch, _, height, width = predictions.shape
    split = predictions.reshape(batch, -1, channels, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(batch, -1, channels)


def grid_anchors(shapes: Sequence[Tensor], strides: Sequence[int], like: Tensor) -> Tensor:
    """(N, 4) anchors at the cells of the levels `like` the pyramid's, row by row.

    shapes: (A, 4) boxes about a cell's centre, a level. like: the finest level (B, C, H, W); every level is half of the
    last, rounded up.
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

    Its stride of a level is the frame's side by the level's, rounded down, so it is true where that divides the frame.
    """
    from torchvision.models.detection.image_list import ImageList

    shapes = [level.new_empty(1, 1, *level.shape[-2:], dtype=torch.float32) for level in levels]
    anchors = generator(ImageList(frames, [(frames.shape[-2], frames.shape[-1])]), shapes)[0]
    return anchors.expand(len(frames), -1, -1)
