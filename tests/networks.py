"""Networks small enough to train in a test."""

import torch
from torch import Tensor, nn

from vidistill.models.detectors import Detector, Outputs, flatten_level, grid_anchors


def settle_norms(network: nn.Module) -> nn.Module:
    """Gives batch normalisations statistics and weights that do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


class TinySegmenter(nn.Module):
    """Four convolutions with strides, norms, a residual sum and an in-place activation; logits at half size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.mix = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, num_classes, 1)
        settle_norms(self)

    def forward(self, frame: Tensor) -> Tensor:
        x = self.body(self.stem(frame))
        return self.head(torch.relu(self.mix(x) + x))


class TinyDetector(Detector):
    """A one-stage detector of four convolutions: two square anchors at every fourth pixel."""

    leave = ("logits", "offsets")

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.num_classes = num_classes
        first, second = nn.Conv2d(3, width, 3, stride=2, padding=1), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.backbone = nn.Sequential(stem, nn.Sequential(second, nn.BatchNorm2d(2 * width), nn.ReLU()))
        self.logits = nn.Conv2d(2 * width, 2 * num_classes, 1)
        self.offsets = nn.Conv2d(2 * width, 2 * 4, 1)
        settle_norms(self)

    def forward(self, frames: Tensor) -> Outputs:
        features = self.backbone(frames)
        shapes = torch.tensor([[-4.0, -4, 4, 4], [-8, -8, 8, 8]])
        return {
            "logits": flatten_level(self.logits(features), self.num_classes),
            "regression": flatten_level(self.offsets(features), 4),
            "anchors": grid_anchors([shapes], [4], features).expand(len(frames), -1, -1),
        }


class TinyWindows(nn.Module):
    """Doubles the size of the middle frame of a window by four convolutions and a shuffle, from nearest pixels."""

    feature = "output"

    def __init__(self, scale: int = 2, window: int = 3, width: int = 8) -> None:
        super().__init__()
        self.scale, self.window, self.feature_channels = scale, window, width
        self.first = nn.Sequential(nn.Conv2d(3 * window, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.up = nn.Conv2d(width, width * scale**2, 3, padding=1)
        self.output = nn.Conv2d(width, 3, 3, padding=1)
        settle_norms(self)

    def forward(self, windows: Tensor) -> Tensor:
        feature = nn.functional.pixel_shuffle(self.up(self.second(self.first(windows.flatten(1, 2)))), self.scale)
        centre = nn.functional.interpolate(windows[:, self.window // 2], scale_factor=float(self.scale))
        return centre + 0.1 * self.output(torch.relu(feature))


class TinyClips(nn.Module):
    """A clip classifier of two convolution stages a frame, whose later frames weigh more, so that order tells."""

    stages = ("first", "second")
    classifier = "head"
    feature_layout = "frames"

    def __init__(self, num_classes: int, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * width, num_classes)
        settle_norms(self)

    def forward(self, clips: Tensor) -> Tensor:
        features = self.second(self.first(clips.flatten(0, 1))).mean(dim=(2, 3)).unflatten(0, clips.shape[:2])
        weights = torch.arange(1, clips.shape[1] + 1, dtype=features.dtype, device=features.device)
        pooled = (features * weights[:, None]).mean(dim=1)
        return self.head(self.dropout(pooled))
