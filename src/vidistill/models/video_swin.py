"""Video Swin transformers T, S and B.

Source: Liu et al., "Video Swin Transformer", 2022 (arXiv 2106.13230), through torchvision's networks. As in the paper,
and other than in torchvision, dropout comes ahead of the classifier.
"""

from torch import Tensor, nn

from vidistill.models.clips import linear_classifier
from vidistill.models.declares import FeatureLayout
from vidistill.models.libraries import import_torchvision


class VideoSwin(nn.Module):
    """Windowed attention in space and time over 2×4×4 patches, features averaged for a linear classifier.

    clips: (B, T, 3, H, W), RGB, ImageNet-normalised. Returns logits (B, num_classes). The last stage is taken behind
    its normalisation. torchvision's names, under `backbone.`.
    """

    stages = ("backbone.features.0", "backbone.features.2", "backbone.features.4", "backbone.norm")
    classifier = "head"
    feature_layout: FeatureLayout = "channels_last"

    def __init__(self, name: str, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.backbone = import_torchvision().models.get_model(name, weights=None)
        self.backbone.head = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = linear_classifier(self.backbone.num_features, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(clips.transpose(1, 2))))  # pooled features (B, C)


def video_swin_t(num_classes: int, *, dropout: float = 0.5) -> VideoSwin:
    """Video Swin-T: 28.2 million parameters with 400 classes.

    Args:
        num_classes: K.
        dropout: ahead of the classifier, 0…1.

    Returns:
        An untrained network of clips (B, T, 3, H, W), any T, that returns logits (B, K).

    Raises:
        UserError: where torchvision is not installed.
    """
    return VideoSwin("swin3d_t", num_classes, dropout=dropout)


def video_swin_s(num_classes: int, *, dropout: float = 0.5) -> VideoSwin:
    """Video Swin-S: 49.8 million parameters with 400 classes; arguments as `video_swin_t`."""
    return VideoSwin("swin3d_s", num_classes, dropout=dropout)


def video_swin_b(num_classes: int, *, dropout: float = 0.5) -> VideoSwin:
    """Video Swin-B: 88.0 million parameters with 400 classes; arguments as `video_swin_t`."""
    return VideoSwin("swin3d_b", num_classes, dropout=dropout)
