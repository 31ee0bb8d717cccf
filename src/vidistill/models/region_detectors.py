"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) with a feature pyramid, through torchvision, behind our contract.

torchvision's backbone, proposal head and box head are taken over. Its GeneralizedRCNNTransform, which would resize and
normalise again, is left out, but for its padding; so are its samplers and its decoding. Its proposals and its pooling
are replaced by ones of static shape, which need none of torchvision's compiled operators.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.models.detectors import PADDED_TO, Detector, Outputs, flatten_level, library_anchors, pad_frames
from vidistill.ops.boxes import clip_boxes, decode_boxes, suppress
from vidistill.ops.region_pooling import pool_regions

CANDIDATES = 1000  # a level, before suppression
PROPOSAL_IOU = 0.7
REGION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # that torchvision multiplies its box offsets by


class RegionOutputs(Outputs):
    """Outputs for frames of `size` (height, width), with their network, whose box head can judge other boxes."""

    def __init__(self, outputs: Outputs, network: "FasterRCNN", size: tuple[int, int]) -> None:
        super().__init__(outputs)
        self.network = network
        self.size = size

    def regions(self, boxes: Tensor) -> Outputs:
        """region_logits and region_regression for boxes (B, P, 4)."""
        return self.network.regions(self, boxes, size=self.size)


class FasterRCNN(Detector):
    """A Faster R-CNN made of the parts of torchvision's. In training mode it returns `RegionOutputs`.

    num_proposals: P, the same in every frame; fewer are filled up with empty boxes. The default is the first paper's
    300, where torchvision has 1000: the box head's cost grows with it (14 MMAC each).
    """

    def __init__(self, network: Any, *, num_proposals: int = 300) -> None:
        super().__init__()
        self.backbone: nn.Module = network.backbone
        self.anchor_generator: nn.Module = network.rpn.anchor_generator
        self.proposal_head: nn.Module = network.rpn.head
        self.box_head: nn.Module = network.roi_heads.box_head
        self.box_predictor: nn.Module = network.roi_heads.box_predictor
        self.pooled_levels = [str(name) for name in network.roi_heads.box_roi_pool.featmap_names]
        self.num_classes = int(network.roi_heads.box_predictor.cls_score.out_features) - 1
        self.num_proposals = num_proposals
        layers = [path for path, module in self.backbone.named_modules() if isinstance(module, nn.Conv2d)]
        squeezing = [f"backbone.{path}" for path in layers if path.endswith((".fc1", ".fc2"))]
        predicting = ["proposal_head.cls_logits", "proposal_head.bbox_pred", "box_head.*", "box_predictor.*"]
        self.leave = (f"backbone.{layers[0]}", *squeezing, *predicting)
        self.backbone_path = "backbone.body"

    def forward(self, frames: Tensor) -> Outputs:
        size = (frames.shape[-2], frames.shape[-1])
        frames = pad_frames(frames, PADDED_TO)
        features = self.backbone(frames)
        pyramid = {"0": features} if isinstance(features, Tensor) else features
        levels = list(pyramid.values())
        scores, offsets = self.proposal_head(levels)
        logits = [flatten_level(level, 1) for level in scores]
        outputs = {
            "logits": torch.cat(logits, dim=1),
            "regression": torch.cat([flatten_level(level, 4) for level in offsets], dim=1),
            "anchors": library_anchors(self.anchor_generator, frames, levels),
        }
        outputs["proposals"] = self._proposals(outputs, [level.shape[1] for level in logits], size)
        pooled = [pyramid[name] for name in self.pooled_levels if name in pyramid]
        outputs |= {f"features.{i}": level for i, level in enumerate(pooled)}
        outputs |= self.regions(outputs, outputs["proposals"], size=size)
        return RegionOutputs(outputs, self, size) if self.training else outputs

    def regions(self, outputs: Outputs, boxes: Tensor, *, size: tuple[int, int]) -> Outputs:
        """region_logits and region_regression of the box head for any boxes (B, P, 4) of frames of `size`.

        outputs: what the network returned for the frames.
        """
        features = [outputs[name] for name in sorted(n for n in outputs if n.startswith("features."))]
        height = size[0] + -size[0] % PADDED_TO
        strides = [height // level.shape[2] for level in features]
        pooled = pool_regions(features, boxes, strides=strides)  # (B, P, C, 7, 7)
        logits, regression = self.box_predictor(self.box_head(pooled.flatten(0, 1)))  # (B·P, K + 1), (B·P, 4·(K + 1))
        regression = regression / regression.new_tensor(REGION_WEIGHTS * (self.num_classes + 1))
        return {
            "region_logits": logits.unflatten(0, boxes.shape[:2]),
            "region_regression": regression.unflatten(1, (-1, 4)).unflatten(0, boxes.shape[:2])[:, :, 1:],
        }

    @torch.no_grad()
    def _proposals(self, outputs: Outputs, level_sizes: list[int], size: tuple[int, int]) -> Tensor:
        """(B, P, 4) boxes: suppression keeps some of each level's best, and the best of all levels' are taken."""
        boxes = clip_boxes(decode_boxes(outputs["regression"].detach(), outputs["anchors"]), size)
        proposals, scores = [], []
        for level_boxes, level_scores in zip(
            boxes.split(level_sizes, dim=1), outputs["logits"].detach()[..., 0].split(level_sizes, dim=1), strict=True
        ):
            count = min(CANDIDATES, level_scores.shape[1])
            best, places = level_scores.topk(count, dim=1)
            candidates = level_boxes.gather(1, places[..., None].expand(-1, -1, 4))
            kept = suppress(candidates, best, torch.zeros_like(places), PROPOSAL_IOU, min(count, self.num_proposals))
            chosen, is_kept = kept.clamp(min=0), kept >= 0  # -1 fills up
            proposals.append(candidates.gather(1, chosen[..., None].expand(-1, -1, 4)) * is_kept[..., None])
            scores.append(best.gather(1, chosen).masked_fill(~is_kept, -torch.inf))
        score = torch.cat(scores, dim=1)
        count = min(self.num_proposals, score.shape[1])
        chosen = score.topk(count, dim=1).indices
        best_proposals = torch.cat(proposals, dim=1).gather(1, chosen[..., None].expand(-1, -1, 4))
        return nn.functional.pad(best_proposals, (0, 0, 0, self.num_proposals - count))


def faster_rcnn(
    builder: Callable[..., Any], *, num_classes: int, num_proposals: int = 300, **options: Any
) -> FasterRCNN:
    """The Faster R-CNN of torchvision's builder, for `num_classes` classes, untrained unless options say otherwise."""
    defaults = {"weights": None, "weights_backbone": None, "num_classes": num_classes + 1}
    return FasterRCNN(builder(**defaults | options), num_proposals=num_proposals)
