"""HRNet: high-resolution representations for dense prediction.

Source: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2020 (arXiv 1908.07919),
the form for segmentation (v2: all resolutions are concatenated for the head). Written from the paper; upsampling goes
to the measured size, so that any frame size works.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.layers import BasicBlock, Bottleneck, conv_norm, initialise, resize_like


class ExchangeModule(nn.Module):
    """One multi-resolution module: basic blocks on every branch, then every branch receives all the others.

    Takes and returns a list of features, the finest first; branch i is at 1/2ⁱ of branch 0.
    """

    def __init__(self, channels: tuple[int, ...], depth: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Sequential(*[BasicBlock(width, width) for _ in range(depth)]) for width in channels]
        )
        self.exchange = nn.ModuleList(
            [nn.ModuleList([_path(channels, j, i) for j in range(len(channels))]) for i in range(len(channels))]
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for i, paths in enumerate(self.exchange):
            assert isinstance(paths, nn.ModuleList)
            total = features[i]
            for j, path in enumerate(paths):
                if j > i:
                    total = total + resize_like(path(features[j]), features[i])
                elif j < i:
                    total = total + path(features[j])
            fused.append(F.relu(total))
        return fused


def _path(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
    """Layers from branch `source` to branch `target`, without the upsampling."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(channels[source], channels[target], 1)
    steps: list[nn.Module] = []
    for _ in range(target - source - 1):
        steps += [conv_norm(channels[source], channels[source], 3, stride=2), nn.ReLU()]
    return nn.Sequential(*steps, conv_norm(channels[source], channels[target], 3, stride=2))


class Transition(nn.Module):
    """Starts a new, coarser branch from the last one, and gives the others their new numbers of channels."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.keep = nn.ModuleList(
            [
                nn.Identity() if old == new else nn.Sequential(conv_norm(old, new, 3), nn.ReLU())
                for old, new in zip(before, after, strict=False)
            ]
        )
        self.start = nn.Sequential(conv_norm(before[-1], after[-1], 3, stride=2), nn.ReLU())

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        kept = [keep(x) for keep, x in zip(self.keep, features, strict=True)]
        return [*kept, self.start(features[-1])]


class HRNet(nn.Module):
    """Branches at 1/4, 1/8, 1/16 and 1/32 of the frame, which exchange features all along.

    frame: (B, 3, H, W), RGB, ImageNet-normalised. Returns logits (B, num_classes, ceil(H/4), ceil(W/4)).
    modules: multi-resolution modules in stages 2, 3, 4; depth: blocks in each branch of a module, and bottlenecks in
    stage 1.
    """

    granularities: ClassVar[dict[str, tuple[str, ...]]] = {
        "block": ("stage1.*", "stage?.*.branches.*.*"),
        "stage": ("stage?",),
    }

    def __init__(self, num_classes: int, *, width: int, modules: tuple[int, int, int], depth: int) -> None:
        super().__init__()
        widths = tuple(width * 2**i for i in range(4))
        self.stem = nn.Sequential(conv_norm(3, 64, 3, stride=2), nn.ReLU(), conv_norm(64, 64, 3, stride=2), nn.ReLU())
        self.stage1 = nn.Sequential(*[Bottleneck(64 if i == 0 else 256, 64, expansion=4) for i in range(depth)])
        self.to2 = Transition((256,), widths[:2])
        self.stage2 = nn.Sequential(*[ExchangeModule(widths[:2], depth) for _ in range(modules[0])])
        self.to3 = Transition(widths[:2], widths[:3])
        self.stage3 = nn.Sequential(*[ExchangeModule(widths[:3], depth) for _ in range(modules[1])])
        self.to4 = Transition(widths[:3], widths)
        self.stage4 = nn.Sequential(*[ExchangeModule(widths, depth) for _ in range(modules[2])])
        total = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(), nn.Conv2d(total, num_classes, 1)
        )
        self.apply(initialise)

    def forward(self, frame: Tensor) -> Tensor:
        features = self.stage2(self.to2([self.stage1(self.stem(frame))]))
        features = self.stage4(self.to4(self.stage3(self.to3(features))))
        return self.head(torch.cat([resize_like(x, features[0]) for x in features], dim=1))


def hrnet_w18_small(num_classes: int) -> HRNet:
    """HRNet-w18-small with modules 1, 1, 3, 2 of 2 blocks: 76.9 GMAC at 1024×2048 (convolutions alone).

    Args:
        num_classes: K.

    Returns:
        An untrained network of frames (B, 3, H, W) that returns logits (B, K, ceil(H/4), ceil(W/4)).
    """
    return HRNet(num_classes, width=18, modules=(1, 3, 2), depth=2)
