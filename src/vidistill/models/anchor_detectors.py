"""torchvision's one-stage detectors: RetinaNet, FCOS, SSD and SSDlite, behind our contract.

Their backbones, heads and anchors are taken over. What resizes and normalises frames again (GeneralizedRCNNTransform)
and what decodes and suppresses is left out: frames come normalised, at the size at which the network is to see them.
All but SSD pad them with zeros, as that transform does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.models.detectors import PADDED_TO, Detector, Outputs, library_anchors, pad_frames

SMALLEST_SIDE = 1e-3  # of a box, in anchors, where a distance of 0 to both sides would have no logarithm


class AnchorDetector(Detector):
    """Backbone, head and anchors of one of torchvision's one-stage detectors.

    Outputs have one form: FCOS's distances to four sides become offsets of its squares, SSD's softmax becomes the log
    odds of each class, whose sigmoid is the same probability, and offsets lose their weights.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone: nn.Module = network.backbone
        self.head: nn.Module = network.head
        self.anchor_generator: nn.Module = network.anchor_generator
        self.kind = type(network).__name__
        if self.kind == "SSD":
            self.num_classes = int(network.head.classification_head.num_columns) - 1
        else:
            self.num_classes = int(network.head.classification_head.num_classes)
        self.box_weights = tuple(getattr(network.box_coder, "weights", (1.0, 1.0, 1.0, 1.0)))
        self.leave = tuple(_left_layers(self))

    def forward(self, frames: Tensor) -> Outputs:
        if self.kind != "SSD":
            frames = pad_frames(frames, PADDED_TO)
        features = self.backbone(frames)
        levels = [features] if isinstance(features, Tensor) else list(features.values())
        predictions = self.head(levels)
        outputs = {
            "logits": predictions["cls_logits"],
            "regression": predictions["bbox_regression"],
            "anchors": library_anchors(self.anchor_generator, frames, levels),
        }
        if self.kind == "SSD":
            outputs["logits"] = _log_odds(outputs["logits"])
        if self.kind == "FCOS":
            # (B, N, 4) distances to the left, top, right and bottom sides become offsets of squares, both in squares
            near, far = outputs["regression"][..., :2], outputs["regression"][..., 2:]
            outputs["regression"] = torch.cat([(far - near) / 2, (near + far).clamp(min=SMALLEST_SIDE).log()], dim=2)
            outputs["centreness"] = predictions["bbox_ctrness"]
        else:
            outputs["regression"] = outputs["regression"] / outputs["regression"].new_tensor(self.box_weights)
        return outputs


def _log_odds(logits: Tensor) -> Tensor:
    """(B, N, K) log p / (1 − p) of a softmax's classes, without the first, the background."""
    log_p = logits.log_softmax(dim=2)[..., 1:].clamp(max=-1e-6)
    likely = log_p > -0.7  # p above one half: there expm1 is exact for 1 − p, elsewhere log1p
    rest = torch.where(
        likely, torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(torch.where(likely, -1.0, log_p)))
    )
    return log_p - rest


def _left_layers(network: nn.Module) -> list[str]:
    """Paths of the first convolution, the layers that predict, and squeeze-excitation."""
    layers = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    first = next(path for path in layers if path.startswith("backbone."))
    # a head's layers that predict: all of an SSD's, which are in a `module_list`, and in the others those named so
    names = {"cls_logits", "bbox_reg", "bbox_ctrness", "module_list"}
    predicting = [path for path in layers if path.startswith("head.") and names & set(path.split("."))]
    squeezing = [path for path in layers if path.endswith((".fc1", ".fc2"))]
    return [first, *predicting, *squeezing]


def anchor_detector(builder: Callable[..., nn.Module], *, num_classes: int, **options: object) -> AnchorDetector:
    """The detector of torchvision's builder, for `num_classes` classes, untrained unless options say otherwise."""
    has_background = "ssd" in builder.__name__  # counted as a class
    defaults = {"weights": None, "weights_backbone": None, "num_classes": num_classes + has_background}
    return AnchorDetector(builder(**defaults | options))
