"""Faster R-CNN by name: ResNet-101, ResNet-50 and MobileNetV3 with a feature pyramid."""

from torch import nn

from vidistill.models.libraries import import_torchvision, torchvision_network
from vidistill.models.region_detectors import FasterRCNN


def faster_rcnn_resnet101(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, ResNet-101 with a feature pyramid; the papers' has no pyramid but a dilated last stage (DC5)."""
    import_torchvision()
    from torchvision.models.detection import FasterRCNN as Library
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name="resnet101", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    return FasterRCNN(Library(backbone, num_classes=num_classes + 1), num_proposals=num_proposals)


def faster_rcnn_resnet50(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, ResNet-50 with a feature pyramid."""
    return _of_torchvision("fasterrcnn_resnet50_fpn", num_classes, num_proposals)


def faster_rcnn_mobilenet_v3(*, num_classes: int, num_proposals: int = 300) -> FasterRCNN:
    """Faster R-CNN, MobileNetV3-Large with a feature pyramid."""
    return _of_torchvision("fasterrcnn_mobilenet_v3_large_fpn", num_classes, num_proposals)


def _of_torchvision(name: str, num_classes: int, num_proposals: int) -> FasterRCNN:
    network = torchvision_network(name, num_classes=num_classes, num_proposals=num_proposals)
    assert isinstance(network, FasterRCNN)
    return network
