"""Layers that our networks share. No activation is in place, so that converted layers may keep what they return."""

from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """A bias-free convolution that keeps the size (divided by `stride`), then batch normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """`x` bilinearly resized to the height and width of `reference`."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; the last activation is left to the caller where `final_relu` is False."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, final_relu: bool = True) -> None:
        super().__init__()
        self.first = conv_norm(in_channels, out_channels, 3, stride=stride)
        self.second = conv_norm(out_channels, out_channels, 3)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x))) + self.shortcut(x)
        return F.relu(out) if self.final_relu else out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with an expansion and a shortcut; `final_relu` as in BasicBlock."""

    def __init__(
        self, in_channels: int, channels: int, *, expansion: int, stride: int = 1, final_relu: bool = True
    ) -> None:
        super().__init__()
        self.reduce = conv_norm(in_channels, channels, 1)
        self.spatial = conv_norm(channels, channels, 3, stride=stride)
        self.expand = conv_norm(channels, expansion * channels, 1)
        self.shortcut = _shortcut(in_channels, expansion * channels, stride)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        out = self.expand(F.relu(self.spatial(F.relu(self.reduce(x))))) + self.shortcut(x)
        return F.relu(out) if self.final_relu else out


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a projection where the block changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, 1, stride=stride)


def initialise(module: nn.Module) -> None:
    """He's start for convolutions, 0 for their biases; for `network.apply`."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
