"""Faster R-CNN by name: ResNet-101, ResNet-50, MobileNetV3 and EfficientNet-Lite0 with a feature pyramid."""

from typing import Any

from torch import Tensor, nn

from vidistill.models.libraries import import_torchvision, timm_network, torchvision_network
from vidistill.models.region_detectors import FasterRCNN


def faster_rcnn_resnet101(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, ResNet-101 with a feature pyramid; the papers' has no pyramid but a dilated last stage (DC5).

    Args:
        num_classes: K, without the background.
        num_proposals: regions that the box head judges in each frame.

    Returns:
        An untrained `Detector` of frames (B, 3, H, W) of any size.

    Raises:
        UserError: where torchvision is not installed.
    """
    import_torchvision()
    from torchvision.models.detection import FasterRCNN as Library
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name="resnet101", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    return FasterRCNN(Library(backbone, num_classes=num_classes + 1), num_proposals=num_proposals)


def faster_rcnn_resnet50(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, ResNet-50 with a feature pyramid; arguments as `faster_rcnn_resnet101`."""
    return _of_torchvision("fasterrcnn_resnet50_fpn", num_classes, num_proposals)


def faster_rcnn_mobilenet_v3(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, MobileNetV3-Large with a feature pyramid; arguments as `faster_rcnn_resnet101`."""
    return _of_torchvision("fasterrcnn_mobilenet_v3_large_fpn", num_classes, num_proposals)


def faster_rcnn_efficientnet_lite0(*, num_classes: int, num_proposals: int = 100, channels: int = 256) -> FasterRCNN:
    """Faster R-CNN, EfficientNet-Lite0 with a feature pyramid of `channels`. [ours]

    The package index has ImageNet weights of this backbone. There are fewer proposals than in the others, because the
    box head would cost more than all the rest. Other arguments as `faster_rcnn_resnet101`.
    """
    import_torchvision()
    from torchvision.models.detection import FasterRCNN as Library

    pyramid = TimmPyramid("tf_efficientnet_lite0", channels)
    return FasterRCNN(Library(pyramid, num_classes=num_classes + 1), num_proposals=num_proposals)


class TimmPyramid(nn.Module):
    """A timm network's features at strides 4 to 32 as a feature pyramid, with one more level, in torchvision's form."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        body: Any = timm_network(name, features_only=True, out_indices=(1, 2, 3, 4))
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(level): features for level, features in enumerate(self.body(frames))})


def _of_torchvision(name: str, num_classes: int, num_proposals: int) -> FasterRCNN:
    network = torchvision_network(name, num_classes=num_classes, num_proposals=num_proposals)
    assert isinstance(network, FasterRCNN)
    return network
