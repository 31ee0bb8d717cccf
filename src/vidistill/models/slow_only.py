"""SlowOnly: a 3-D ResNet that looks along time in its last two stages only and never strides it.

Source: Feichtenhofer, Fan, Malik & He, "SlowFast Networks for Video Recognition", 2019 (arXiv 1812.03982), the Slow
pathway alone; 8×8 means eight frames, every eighth of the video. Written from the paper; layers are named as in
2-D ResNets, so that their weights inflate by name. Depth 18, which is not in the paper, looks along time in each
block's first convolution.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.clips import linear_classifier
from vidistill.models.declares import FeatureLayout
from vidistill.models.layers import initialise

DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # blocks in each stage
TEMPORAL_KERNELS = (1, 1, 3, 3)  # frames that a stage's blocks look at


def conv(in_channels: int, out_channels: int, kernel: int, *, temporal: int = 1, stride: int = 1) -> nn.Conv3d:
    """A bias-free convolution of temporal×kernel×kernel that keeps time, and space divided by `stride`."""
    return nn.Conv3d(
        in_channels,
        out_channels,
        (temporal, kernel, kernel),
        stride=(1, stride, stride),
        padding=(temporal // 2, kernel // 2, kernel // 2),
        bias=False,
    )


class BasicBlock3d(nn.Module):
    """Two convolutions and a shortcut, the first also along time."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, temporal: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, temporal=temporal, stride=stride)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm3d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.downsample(x))


class Bottleneck3d(nn.Module):
    """temporal×1², 1×3² with the stride, 1×1² with a fourfold expansion, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, temporal: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = conv(in_channels, channels, 1, temporal=temporal)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv(channels, channels, 3, stride=stride)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + self.downsample(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a projection where the block changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, out_channels, 1, stride=stride), nn.BatchNorm3d(out_channels))


class ResNet3d(nn.Module):
    """Features (B, C, T, ceil(H/32), ceil(W/32)) of clips (B, 3, T, H, W)."""

    def __init__(self, block: type[BasicBlock3d] | type[Bottleneck3d], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm3d(64)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.num_features = 64
        stages = []
        for index, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(self.num_features, 64 * 2**index, temporal=TEMPORAL_KERNELS[index], stride=stride))
                self.num_features = 64 * 2**index * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, clips: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(clips))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class SlowOnly(nn.Module):
    """The 3-D ResNet, its features averaged over time and space, and a linear classifier.

    clips: (B, T, 3, H, W), RGB, normalised. Returns logits (B, num_classes).
    """

    stages = ("backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4")
    classifier = "head"
    feature_layout: FeatureLayout = "channels_first"

    def __init__(self, num_classes: int, *, depth: int, dropout: float) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        self.backbone = ResNet3d(BasicBlock3d if depth == 18 else Bottleneck3d, DEPTHS[depth])
        self.backbone.apply(initialise)
        self.dropout = nn.Dropout(dropout)
        self.head = linear_classifier(self.backbone.num_features, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        features = self.backbone(clips.transpose(1, 2))  # (B, C, T, h, w)
        return self.head(self.dropout(features.mean(dim=(2, 3, 4))))


def slow_only(num_classes: int, *, depth: int = 50, dropout: float = 0.5) -> SlowOnly:
    """SlowOnly, for 8×8 clips; with depth 50 and 400 classes 32.45 million parameters.

    Args:
        num_classes: K.
        depth: layers of the ResNet, 18 or 50.
        dropout: ahead of the classifier, 0…1.

    Returns:
        An untrained network of clips (B, T, 3, H, W), any T, that returns logits (B, K).

    Raises:
        ValueError: for another depth.
    """
    return SlowOnly(num_classes, depth=depth, dropout=dropout)
