"""DDRNet: deep dual-resolution networks for real-time semantic segmentation.

Source: Pan, Hong, Sun & Jia, "Deep Dual-Resolution Networks for Real-Time and Accurate Semantic Segmentation of
Traffic Scenes", 2021 (arXiv 2101.06085). Written from the paper; upsampling goes to the measured size, so that any
frame size works.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.layers import BasicBlock, Bottleneck, conv_norm, initialise, resize_like


def norm_conv(in_channels: int, out_channels: int, kernel: int, *, bias: bool = False) -> nn.Sequential:
    """Batch normalisation and ReLU ahead of a convolution that keeps the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)


def stage(in_channels: int, channels: int, depth: int, *, stride: int = 1) -> nn.Sequential:
    """`depth` basic blocks, the first with the stride, the last without its ReLU."""
    blocks = [BasicBlock(in_channels, channels, stride=stride, final_relu=depth > 1)]
    blocks += [BasicBlock(channels, channels, final_relu=i < depth - 1) for i in range(1, depth)]
    return nn.Sequential(*blocks)


class PyramidPooling(nn.Module):
    """Deep aggregation pyramid pooling (DAPPM): contexts of growing size, each refining the one before."""

    POOLS = ((5, 2), (9, 4), (17, 8))

    def __init__(self, in_channels: int, branch_channels: int, out_channels: int) -> None:
        super().__init__()
        pools: list[nn.Module] = [nn.AvgPool2d(size, stride, padding=stride) for size, stride in self.POOLS]
        pools.append(nn.AdaptiveAvgPool2d(1))
        self.scales = nn.ModuleList([norm_conv(in_channels, branch_channels, 1)])
        self.scales.extend(nn.Sequential(pool, norm_conv(in_channels, branch_channels, 1)) for pool in pools)
        self.refine = nn.ModuleList([norm_conv(branch_channels, branch_channels, 3) for _ in pools])
        self.compress = norm_conv(branch_channels * (len(pools) + 1), out_channels, 1)
        self.shortcut = norm_conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.scales[0](x)]
        for scale, refine in zip(self.scales[1:], self.refine, strict=True):
            levels.append(refine(resize_like(scale(x), x) + levels[-1]))
        return self.compress(torch.cat(levels, dim=1)) + self.shortcut(x)


class DDRNet(nn.Module):
    """Two branches, at 1/8 and down to 1/64 of the frame, that exchange features after every stage.

    frame: (B, 3, H, W), RGB, ImageNet-normalised. Returns logits (B, num_classes, ceil(H/8), ceil(W/8)).
    stage_depths: basic blocks in stages 1, 2, 4; shared_depths: blocks in each part of stage 3, after which the
    branches meet (one part in DDRNet-23, two in DDRNet-39).
    """

    granularities: ClassVar[dict[str, tuple[str, ...]]] = {
        "block": ("stage?.*", "low4.*", "high4.*", "low3.*.*", "high3.*.*", "low5", "high5", "pyramid"),
        "stage": ("stage?", "low4", "high4", "low3.*", "high3.*", "low5", "high5", "pyramid"),
    }

    def __init__(
        self,
        num_classes: int,
        *,
        channels: int,
        head_channels: int,
        stage_depths: tuple[int, int, int] = (2, 2, 2),
        shared_depths: tuple[int, ...] = (2,),
        pyramid_channels: int = 128,
    ) -> None:
        super().__init__()
        c, high = channels, 2 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
            nn.Conv2d(c, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
        )  # fmt: skip
        self.stage1 = stage(c, c, stage_depths[0])
        self.stage2 = stage(c, high, stage_depths[1], stride=2)
        self.low3 = nn.ModuleList()
        self.high3 = nn.ModuleList()
        self.to_high3 = nn.ModuleList()
        self.to_low3 = nn.ModuleList()
        for part, depth in enumerate(shared_depths):
            first = part == 0
            self.low3.append(stage(high if first else 4 * c, 4 * c, depth, stride=2 if first else 1))
            self.high3.append(stage(high, high, depth))
            self.to_high3.append(conv_norm(4 * c, high, 1))
            self.to_low3.append(conv_norm(high, 4 * c, 3, stride=2))
        self.low4 = stage(4 * c, 8 * c, stage_depths[2], stride=2)
        self.high4 = stage(high, high, stage_depths[2])
        self.to_high4 = conv_norm(8 * c, high, 1)
        self.to_low4 = nn.Sequential(
            conv_norm(high, 4 * c, 3, stride=2), nn.ReLU(), conv_norm(4 * c, 8 * c, 3, stride=2)
        )
        self.low5 = Bottleneck(8 * c, 8 * c, expansion=2, stride=2, final_relu=False)
        self.high5 = Bottleneck(high, high, expansion=2, final_relu=False)
        self.pyramid = PyramidPooling(16 * c, pyramid_channels, 4 * c)
        self.head = nn.Sequential(
            norm_conv(4 * c, head_channels, 3), norm_conv(head_channels, num_classes, 1, bias=True)
        )
        self.apply(initialise)

    def forward(self, frame: Tensor) -> Tensor:
        low = F.relu(self.stage2(F.relu(self.stage1(self.stem(frame)))))  # (B, 2C, H/8, W/8)
        high = low  # stays at 1/8, while `low` goes on to 1/64
        parts = zip(self.low3, self.high3, self.to_high3, self.to_low3, strict=True)
        for low_stage, high_stage, to_high, to_low in parts:
            low, high = _exchange(low_stage(low), high_stage(high), to_high, to_low)
        low, high = _exchange(self.low4(low), self.high4(high), self.to_high4, self.to_low4)
        context = self.pyramid(self.low5(low))
        high = self.high5(high)
        return self.head(high + resize_like(context, high))


def _exchange(low: Tensor, high: Tensor, to_high: nn.Module, to_low: nn.Module) -> tuple[Tensor, Tensor]:
    """Both branches after each has received the other's features, activated for the next stage."""
    new_low = low + to_low(F.relu(high))
    new_high = high + resize_like(to_high(F.relu(low)), high)
    return F.relu(new_low), F.relu(new_high)


def ddrnet_23_slim(num_classes: int) -> DDRNet:
    """DDRNet-23-slim: 36.3 GMAC at 1024×2048 (convolutions alone).

    Args:
        num_classes: K.

    Returns:
        An untrained network of frames (B, 3, H, W) that returns logits (B, K, ceil(H/8), ceil(W/8)).
    """
    return DDRNet(num_classes, channels=32, head_channels=64)


def ddrnet_23(num_classes: int) -> DDRNet:
    """DDRNet-23: 143 GMAC at 1024×2048 (convolutions alone); otherwise as `ddrnet_23_slim`."""
    return DDRNet(num_classes, channels=64, head_channels=128)


def ddrnet_39(num_classes: int) -> DDRNet:
    """DDRNet-39: 281 GMAC at 1024×2048 (convolutions alone); otherwise as `ddrnet_23_slim`."""
    return DDRNet(num_classes, channels=64, head_channels=256, stage_depths=(3, 4, 3), shared_depths=(3, 3))
