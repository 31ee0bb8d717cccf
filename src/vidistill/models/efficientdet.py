"""EfficientDet (Tan, Pang & Le, CVPR 2020, arXiv 1911.09070) through the package effdet.

D0 has 2.49 GMAC at 512×512 with 90 classes, the 2.50 that both papers count; 2.30 with the 30 classes of ImageNet VID.
"""

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.detectors import Detector, Outputs, flatten_level, grid_anchors, pad_frames
from vidistill.models.libraries import import_torchvision

COARSEST = 128  # pixels; stride of the last level; frames are padded to a multiple of it
# effdet's 0.01 suits its hundreds of epochs: in a run of some hundred steps the statistics would lag behind the weights
NORM_MOMENTUM = 0.1


class EfficientDet(Detector):
    """An EfficientDet made of the parts of effdet's; frames of any size, padded with zeros at the right and bottom.

    effdet builds its feature pyramid for one size. Here every upsampling is by 2, which is the same at that size and
    right at all others.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        config = network.config
        self.num_classes = int(config.num_classes)
        self.backbone: nn.Module = network.backbone
        self.fpn: nn.Module = network.fpn
        self.class_net: nn.Module = network.class_net
        self.box_net: nn.Module = network.box_net
        first = next(path for path, module in self.backbone.named_modules() if isinstance(module, nn.Conv2d))
        self.leave = (f"backbone.{first}", "backbone.*.se.*", "class_net.predict.*", "box_net.predict.*")
        for module in self.fpn.modules():
            if type(module).__name__ == "Interpolate2d":
                module.size, module.scale_factor = None, 2.0  # type: ignore[assignment]
        self.strides = [2**level for level in range(config.min_level, config.max_level + 1)]
        self.anchor_shapes = [_anchor_shapes(config, stride) for stride in self.strides]

    def forward(self, frames: Tensor) -> Outputs:
        levels = self.fpn(self.backbone(pad_frames(frames, COARSEST)))  # (B, C, h, w) each, finest first
        anchors = grid_anchors(self.anchor_shapes, self.strides, levels[0])
        classes = [flatten_level(level, self.num_classes) for level in self.class_net(levels)]
        offsets = [flatten_level(level, 4) for level in self.box_net(levels)]
        return {
            "logits": torch.cat(classes, dim=1),
            "regression": torch.cat(offsets, dim=1)[..., [1, 0, 3, 2]],  # effdet's are y, x, h, w
            "anchors": anchors.expand(len(frames), -1, -1),
        }


def _anchor_shapes(config: Any, stride: int) -> Tensor:
    """(A, 4) boxes about a cell's centre: three octaves, and in each the aspect ratios."""
    shapes = []
    for octave in range(config.num_scales):
        side = config.anchor_scale * stride * 2 ** (octave / config.num_scales)
        for width, height in config.aspect_ratios:
            shapes.append([-side * width / 2, -side * height / 2, side * width / 2, side * height / 2])
    return torch.tensor(shapes)


def efficientdet(name: str = "efficientdet_d0", *, num_classes: int, backbone: str | None = None) -> EfficientDet:
    """An untrained EfficientDet by effdet's name for it. backbone: any timm network with features, in place of its own.

    Errors: ValueError for a name that effdet, or timm, does not know; UserError where effdet is not installed.
    """
    import_torchvision()  # effdet imports it, and it may need its workaround
    try:
        effdet = importlib.import_module("effdet")
    except ImportError as error:
        raise UserError(f"effdet cannot be imported ({error}); pip install 'vidistill[detection]'") from error
    if name not in effdet.config.model_config.efficientdet_model_param_dict:
        raise ValueError(f"effdet has no network '{name}'")
    config = effdet.get_efficientdet_config(name)
    config.num_classes = num_classes
    config.image_size = (2 * COARSEST, 2 * COARSEST)
    if backbone is not None:
        if not importlib.import_module("timm").is_model(backbone):
            raise ValueError(f"backbone must be a network of timm, got '{backbone}'")
        config.backbone_name, config.backbone_args = backbone, {}
    network = effdet.EfficientDet(config, pretrained_backbone=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = NORM_MOMENTUM
    return EfficientDet(network)


def efficientdet_d0(*, num_classes: int, backbone: str | None = None) -> EfficientDet:
    """EfficientDet-D0, as in the experiments of delta distillation (Habibian et al. 2022).

    Args:
        num_classes: K.
        backbone: any timm network with features, in place of EfficientNet-B0.

    Returns:
        An untrained `Detector` of frames (B, 3, H, W) of any size.

    Raises:
        UserError: where effdet is not installed.
        ValueError: for a backbone that timm does not know.
    """
    return efficientdet("efficientdet_d0", num_classes=num_classes, backbone=backbone)


def efficientdet_lite0(*, num_classes: int) -> EfficientDet:
    """EfficientDet-Lite0: D0 with the backbone EfficientNet-Lite0, without squeeze-excitation, and ReLU6 for swish.

    The package index has ImageNet weights of its backbone, and none of D0's. 1.66 GMAC at 512×384 with one class.
    Arguments as `efficientdet_d0`.
    """
    return efficientdet("tf_efficientdet_lite0", num_classes=num_classes)
