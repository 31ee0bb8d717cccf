"""FastDVDnet with a sub-pixel tail: two stages of small U-Nets, without any alignment of frames.

Source: Tassano, Delon & Veit, "FastDVDnet: Towards Real-Time Deep Video Denoising Without Flow Estimation", 2020
(arXiv 1907.01361). Where we differ: no noise map; the second stage ends in a pixel shuffle and an output convolution,
and its result is added to the bicubic centre frame. There is no batch normalisation, as is usual in super-resolution
(Lim et al. 2017), and features are padded with edge pixels, not zeros: after training on few small patches, either of
the two made frames that are larger, or of more contrast, worse than bicubic ones.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.upscaling import SubPixelStage, SuperResolver, crop_like, keep_scale, pad_to_multiple
from vidistill.ops.resize import upsample_bicubic

TRIPLET = 3  # frames that a block sees
PER_FRAME_CHANNELS = 30
STRIDE = 4  # pixels; frames are padded to a multiple of it


def conv(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A 3×3 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups), nn.ReLU())


def double_conv(channels: int) -> nn.Sequential:
    """Two 3×3 convolutions and ReLUs that keep the number of channels."""
    return nn.Sequential(conv(channels, channels), conv(channels, channels))


class DenoisingBlock(nn.Module):
    """A U-Net of three levels over three frames (B, 9, h, w) → (B, widths[0], h, w); h, w multiples of 4."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        top, middle, bottom = widths
        inner = TRIPLET * PER_FRAME_CHANNELS
        self.frames = nn.Sequential(conv(3 * TRIPLET, inner, groups=TRIPLET), conv(inner, top))
        self.down1 = nn.Sequential(conv(top, middle, stride=2), double_conv(middle))
        self.down2 = nn.Sequential(conv(middle, bottom, stride=2), double_conv(bottom))
        self.up2 = nn.Sequential(double_conv(bottom), SubPixelStage(bottom, middle, 2))
        self.up1 = nn.Sequential(double_conv(middle), SubPixelStage(middle, top, 2))
        self.merge = conv(top, top)

    def forward(self, frames: Tensor) -> Tensor:
        top = self.frames(frames)
        middle = self.down1(top)
        bottom = self.down2(middle)
        middle = middle + self.up2(bottom)
        return self.merge(top + self.up1(middle))


class FastDVDnet(SuperResolver):
    """One block on each three consecutive frames of five, another on the three results.

    widths: channels at full, half and quarter size.
    """

    def __init__(self, *, scale: int, widths: tuple[int, int, int], feature_channels: int) -> None:
        super().__init__(window=5, scale=scale, feature_channels=feature_channels, reach=84)
        self.first = DenoisingBlock(widths)
        self.residual = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.second = DenoisingBlock(widths)
        self.upscale = SubPixelStage(widths[0], feature_channels, scale)
        for part in (self.first, self.second, self.upscale):
            part.apply(keep_scale)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # zeros at the edges are frequent in small patches and rare in frames
                module.padding_mode = "replicate"

    def forward(self, windows: Tensor) -> Tensor:
        base = upsample_bicubic(self.centre(windows), self.scale)
        padded = pad_to_multiple(windows, STRIDE)
        triplets = torch.stack([padded[:, i : i + TRIPLET] for i in range(self.window - TRIPLET + 1)], dim=1)
        batch, count = triplets.shape[:2]
        triplets = triplets.flatten(0, 1)  # (B·3, 3, 3, h, w)
        restored = triplets[:, 1] + self.residual(self.first(triplets.flatten(1, 2)))
        feature = F.relu(self.upscale(self.second(restored.reshape(batch, count * 3, *restored.shape[-2:]))))
        return base + crop_like(self.output(feature), base)


def fastdvdnet(
    scale: int = 4, *, channels: tuple[int, int, int] = (32, 64, 128), feature_channels: int = 32
) -> FastDVDnet:
    """FastDVDnet for super-resolution; the feature is the activation after the pixel shuffle.

    Args:
        scale: 2, 3 or 4.
        channels: of the features at full, half and quarter size.
        feature_channels: of the last feature, at the frames' high resolution.

    Returns:
        An untrained network of windows (B, 5, 3, h, w), RGB in 0…1, that returns frames (B, 3, scale·h, scale·w).

    Raises:
        ValueError: for another scale.
    """
    top, middle, bottom = channels
    return FastDVDnet(scale=scale, widths=(top, middle, bottom), feature_channels=feature_channels)
