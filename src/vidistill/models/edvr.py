"""EDVR: video restoration with enhanced deformable convolutions.

Source: Wang, Chan, Yu, Dong & Loy, "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", 2019
(arXiv 1905.02716). Written from the paper. Frames may have any size: they are padded to a multiple of 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.upscaling import SubPixelStage, SuperResolver, crop_like, keep_scale, pad_to_multiple
from vidistill.ops.deformable import deformable_convolution

LEVELS = 3  # of the pyramid: full, half and quarter size
STRIDE = 2 ** (LEVELS - 1)
OUTER_REACH = 56  # pixels that all but the residual blocks reach, undeformed; each block reaches 2 more
SLOPE = 0.1  # of every leaky ReLU


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a ReLU between them, added to their input; no normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)
        for conv in (self.first, self.second):
            conv.weight.data.mul_(0.1)  # a deep trunk starts near the identity (Wang et al. 2018, ESRGAN)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Pyramid(nn.Module):
    """Features of frames (N, 3, h, w) at full, half and quarter size, each with the same channels."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.first = _conv(3, channels)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_blocks)))
        self.reduce = nn.ModuleList(_conv(channels, channels, stride=2) for _ in range(LEVELS - 1))
        self.refine = nn.ModuleList(_conv(channels, channels) for _ in range(LEVELS - 1))

    def forward(self, frames: Tensor) -> list[Tensor]:
        levels = [self.blocks(_leaky(self.first(frames)))]
        for reduce, refine in zip(self.reduce, self.refine, strict=True):
            levels.append(_leaky(refine(_leaky(reduce(levels[-1])))))
        return levels


class DeformableConvolution(nn.Module):
    """A 3×3 convolution of x (N, C, h, w) whose taps are moved and weighted by convolutions of `guide` (N, C, h, w).

    At the start no tap moves and each has weight one half. Each of `groups` parts of the channels has its own offsets.
    Errors: ValueError where groups do not divide the channels.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"groups must divide the {channels} channels, got {groups} deformable groups")
        self.shift = nn.Conv2d(channels, 2 * groups * 9, 3, padding=1)  # y and x of each of 9 taps
        self.weigh = nn.Conv2d(channels, groups * 9, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.weight.data.mul_(2)  # makes up for taps of half weight
        self.bias = nn.Parameter(torch.zeros(channels))
        for parameter in (*self.shift.parameters(), *self.weigh.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return deformable_convolution(x, self.shift(guide), torch.sigmoid(self.weigh(guide)), self.weight, self.bias)


class PyramidAlignment(nn.Module):
    """PCD: features aligned to those of a reference, from the coarsest level to the finest, then once more.

    Both are lists of levels (N, C, h, w), finest first. Offsets and aligned features of a level come from its own
    and from the enlarged coarser ones; offsets are doubled with the size.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        finer = LEVELS - 1
        self.compare = nn.ModuleList(_conv(2 * channels, channels) for _ in range(LEVELS))
        self.join_guides = nn.ModuleList(_conv(2 * channels, channels) for _ in range(finer))
        self.guide = nn.ModuleList(_conv(channels, channels) for _ in range(LEVELS))
        self.align = nn.ModuleList(DeformableConvolution(channels, groups) for _ in range(LEVELS))
        self.join_features = nn.ModuleList(_conv(2 * channels, channels) for _ in range(finer))
        self.cascade_guide = nn.Sequential(
            _conv(2 * channels, channels), nn.LeakyReLU(SLOPE), _conv(channels, channels), nn.LeakyReLU(SLOPE)
        )
        self.cascade = DeformableConvolution(channels, groups)

    def forward(self, features: list[Tensor], reference: list[Tensor]) -> Tensor:
        compared = _leaky(self.compare[-1](torch.cat([features[-1], reference[-1]], dim=1)))
        guide = _leaky(self.guide[-1](compared))
        aligned = _leaky(self.align[-1](features[-1], guide))
        for level in range(LEVELS - 2, -1, -1):
            compared = _leaky(self.compare[level](torch.cat([features[level], reference[level]], dim=1)))
            joined = _leaky(self.join_guides[level](torch.cat([compared, 2 * _enlarged(guide)], dim=1)))
            guide = _leaky(self.guide[level](joined))
            moved = torch.cat([self.align[level](features[level], guide), _enlarged(aligned)], dim=1)
            aligned = self.join_features[level](moved)
            if level > 0:  # the cascade below takes the finest level without activation
                aligned = _leaky(aligned)
        guide = self.cascade_guide(torch.cat([aligned, reference[0]], dim=1))
        return _leaky(self.cascade(aligned, guide))


class AttentionFusion(nn.Module):
    """TSA: aligned features (B, T, C, h, w), weighted by likeness to the centre's, fused to (B, C, h, w), and weighted
    in space."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        # PyTorch's own start, which is small: likenesses begin near one half, and the attention in space near 1
        self.embed_centre = nn.Conv2d(channels, channels, 3, padding=1)
        self.embed = nn.Conv2d(channels, channels, 3, padding=1)
        self.fuse = nn.Conv2d(window * channels, channels, 1).apply(keep_scale)
        self.spatial = nn.Conv2d(window * channels, channels, 1)
        self.reduce_half = nn.Conv2d(2 * channels, channels, 1)
        self.half_inner = nn.Conv2d(channels, channels, 1)
        self.at_quarter = nn.Sequential(
            _conv(2 * channels, channels), nn.LeakyReLU(SLOPE), _conv(channels, channels), nn.LeakyReLU(SLOPE)
        )
        self.half_outer = _conv(channels, channels)
        self.half_merge = nn.Conv2d(channels, channels, 1)
        self.at_full = _conv(channels, channels)
        self.add = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, aligned: Tensor) -> Tensor:
        batch, window = aligned.shape[:2]
        centre = self.embed_centre(aligned[:, window // 2])[:, None]
        embedded = self.embed(aligned.flatten(0, 1)).unflatten(0, (batch, window))
        likeness = torch.sigmoid((embedded * centre).sum(dim=2, keepdim=True))  # (B, T, 1, h, w)
        weighed = (aligned * likeness).flatten(1, 2)  # (B, T·C, h, w)
        attention = self._spatial_attention(weighed)
        return _leaky(self.fuse(weighed)) * torch.sigmoid(attention) * 2 + self.add(attention)

    def _spatial_attention(self, weighed: Tensor) -> Tensor:
        half = _leaky(self.reduce_half(_halved(_leaky(self.spatial(weighed)))))
        quarter = self.at_quarter(_halved(_leaky(self.half_inner(half))))
        half = _leaky(self.half_outer(half)) + _enlarged(quarter)
        return self.at_full(_enlarged(_leaky(self.half_merge(half))))


class EDVR(SuperResolver):
    """Alignment of every frame to the centre one, fusion, a residual trunk, sub-pixel upscaling.

    The result is added to the bilinearly enlarged centre frame. The feature is the activation before the output layer.
    extraction_blocks, reconstruction_blocks: residual blocks before the alignment and after the fusion.
    """

    def __init__(
        self,
        *,
        scale: int,
        window: int,
        channels: int,
        feature_channels: int,
        groups: int,
        extraction_blocks: int,
        reconstruction_blocks: int,
    ) -> None:
        reach = OUTER_REACH + 2 * (extraction_blocks + reconstruction_blocks)
        super().__init__(window=window, scale=scale, feature_channels=feature_channels, reach=reach)
        self.pyramid = Pyramid(channels, extraction_blocks)
        self.align = PyramidAlignment(channels, groups)
        self.fusion = AttentionFusion(channels, window)
        self.trunk = nn.Sequential(*(ResidualBlock(channels) for _ in range(reconstruction_blocks)))
        stages: list[nn.Module] = [SubPixelStage(channels, channels, 2), nn.LeakyReLU(SLOPE)] if scale == 4 else []
        stages += [SubPixelStage(channels, feature_channels, 3 if scale == 3 else 2), nn.LeakyReLU(SLOPE)]
        self.upscale = nn.Sequential(*stages).apply(keep_scale)
        self.before_output = _conv(feature_channels, feature_channels)

    def forward(self, windows: Tensor) -> Tensor:
        centre = self.centre(windows)
        padded = pad_to_multiple(windows, STRIDE)
        feature = self.upscale(self.trunk(self.fusion(self._aligned(padded))))
        residual = self.output(_leaky(self.before_output(feature)))
        base = F.interpolate(centre, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return base + crop_like(residual, base)

    def _aligned(self, windows: Tensor) -> Tensor:
        """(B, T, C, h, w) features of all frames, the centre's too, aligned to the centre's in one batch."""
        batch, window = windows.shape[:2]
        features = self.pyramid(windows.flatten(0, 1))
        reference = []  # the centre's features, repeated for every frame
        for level in features:
            of_clips = level.unflatten(0, (batch, window))
            reference.append(of_clips[:, window // 2, None].expand_as(of_clips).flatten(0, 1))
        return self.align(features, reference).unflatten(0, (batch, window))


def _conv(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1).apply(keep_scale)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _halved(x: Tensor) -> Tensor:
    """(B, 2C, h/2, w/2): maxima and means of 3×3 neighbourhoods."""
    return torch.cat([F.max_pool2d(x, 3, stride=2, padding=1), F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)


def edvr(
    scale: int = 4,
    *,
    window: int = 5,
    channels: int = 64,
    feature_channels: int = 64,
    groups: int = 8,
    extraction_blocks: int = 5,
    reconstruction_blocks: int = 10,
) -> EDVR:
    """EDVR-M, 3.3 M parameters; EDVR-L, 20.6 M, has 128 channels and 40 reconstruction blocks.

    Args:
        scale: 2, 3 or 4.
        window: frames that it looks at, odd.
        channels: of the features, a multiple of `groups`.
        feature_channels: of the last feature, at the frames' high resolution.
        groups: parts of the channels whose deformable convolutions have their own offsets.
        extraction_blocks: residual blocks before the alignment.
        reconstruction_blocks: residual blocks after the fusion.

    Returns:
        An untrained network of windows (B, window, 3, h, w), RGB in 0…1, that returns frames (B, 3, scale·h, scale·w).

    Raises:
        ValueError: for another scale, an even window, or groups that do not divide the channels.
    """
    return EDVR(
        scale=scale,
        window=window,
        channels=channels,
        feature_channels=feature_channels,
        groups=groups,
        extraction_blocks=extraction_blocks,
        reconstruction_blocks=reconstruction_blocks,
    )
