"""ESPNetv2 for semantic segmentation, as a network of one's own: `vidistill --import examples/espnetv2.py train …`.

Source: Mehta, Rastegari, Shapiro & Hajishirzi, "ESPNetv2: A Light-weight, Power Efficient, and General Purpose
Convolutional Neural Network", CVPR 2019 (arXiv 1811.11431). Modules carry the names that the authors' published weights
(github.com/sacmehta/EdgeNets) have, so that these load as they are.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models import MODELS

BRANCHES = 4
DECODER_CHANNELS = (64, 48, 32)


class ESPNetv2(nn.Module):
    """An encoder down to 1/16 of the frame, and a decoder that pools at five scales before every step up.

    frame: (B, 3, H, W), RGB, ImageNet-normalised. Returns logits (B, num_classes, ceil(H/2), ceil(W/2)).
    scale: of the encoder's widths; there are published Cityscapes weights for 0.5, 1.0 and 2.0.
    """

    def __init__(self, num_classes: int = 20, scale: float = 2.0) -> None:
        super().__init__()
        first, second, third, fourth = 32 if scale >= 1 else 16, int(64 * scale), int(128 * scale), int(256 * scale)
        a, b, c = DECODER_CHANNELS
        pooled = min(num_classes // 2, 16)
        self.base_net = Encoder((first, second, third, fourth))
        self.bu_dec_l1 = PyramidPooling(fourth, pooled, a)
        self.bu_dec_l2 = PyramidPooling(a, pooled, b)
        self.bu_dec_l3 = PyramidPooling(b, pooled, c)
        self.bu_dec_l4 = PyramidPooling(c, pooled, num_classes, last=True)
        self.merge_enc_dec_l2 = GatedProjection(third, a)
        self.merge_enc_dec_l3 = GatedProjection(second, b)
        self.merge_enc_dec_l4 = GatedProjection(first, c)
        self.bu_br_l2 = norm_act(a)
        self.bu_br_l3 = norm_act(b)
        self.bu_br_l4 = norm_act(c)

    def forward(self, frame: Tensor) -> Tensor:
        half, quarter, eighth, sixteenth = self.base_net(frame)
        x = self.bu_dec_l1(sixteenth)
        x = self.bu_dec_l2(self.bu_br_l2(add_resized(self.merge_enc_dec_l2(eighth), x)))
        x = self.bu_dec_l3(self.bu_br_l3(add_resized(self.merge_enc_dec_l3(quarter), x)))
        return self.bu_dec_l4(self.bu_br_l4(add_resized(self.merge_enc_dec_l4(half), x)))


class Encoder(nn.Module):
    """(B, 3, H, W) → features at 1/2, 1/4, 1/8 and 1/16, each side rounded up, of `widths` channels."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.level1 = conv_norm(3, first, 3, stride=2)
        self.level2_0 = Down(first, second)
        self.level3_0 = Down(second, third)
        self.level3 = nn.Sequential(*[EESP(third, third, dilations=(1, 2, 3, 4)) for _ in range(3)])
        self.level4_0 = Down(third, fourth)
        self.level4 = nn.Sequential(*[EESP(fourth, fourth, dilations=(1, 1, 2, 3)) for _ in range(7)])

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        frame_4 = halve(halve(frame))
        frame_8 = halve(frame_4)
        half = self.level1(frame)
        quarter = self.level2_0(half, frame_4)
        eighth = self.level3(self.level3_0(quarter, frame_8))
        return half, quarter, eighth, self.level4(self.level4_0(eighth, halve(frame_8)))


class EESP(nn.Module):
    """Reduce, four dilated depthwise convolutions each added to the one before, expand.

    With stride 1 there is a shortcut and an activation; with stride 2 `Down` adds both, and `module_act` is idle: the
    published weights have it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, dilations: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        width = out_channels // BRANCHES
        self.stride = stride
        self.proj_1x1 = conv_norm(in_channels, width, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(
            named(conv=nn.Conv2d(width, width, 3, stride, padding=d, dilation=d, groups=width, bias=False))
            for d in dilations
        )
        self.br_after_cat = named(bn=nn.BatchNorm2d(out_channels), act=nn.PReLU(out_channels))
        self.conv_1x1_exp = conv_norm(out_channels, out_channels, 1, groups=BRANCHES, act=False)
        self.module_act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.proj_1x1(x)
        fused = [self.spp_dw[0](reduced)]
        for branch in self.spp_dw[1:]:
            fused.append(branch(reduced) + fused[-1])
        out = self.conv_1x1_exp(self.br_after_cat(torch.cat(fused, dim=1)))
        return self.module_act(out + x) if self.stride == 1 else out


class Down(nn.Module):
    """Halves the size: pooled features beside an EESP's, plus a projection of the frame pooled to that size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.eesp = EESP(in_channels, out_channels - in_channels, dilations=(1, 2, 3, 4), stride=2)
        self.inp_reinf = nn.Sequential(conv_norm(3, 3, 3), conv_norm(3, out_channels, 1, act=False))
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, frame: Tensor) -> Tensor:
        return self.act(torch.cat([halve(x), self.eesp(x)], dim=1) + self.inp_reinf(frame))


class PyramidPooling(nn.Module):
    """(B, C_in, h, w) → (B, C_out, h, w): depthwise convolutions at five scales, merged; `last` leaves out the norm."""

    SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, last: bool = False) -> None:
        super().__init__()
        stacked = channels * len(self.SCALES)
        self.projection_layer = cbr(in_channels, channels, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in self.SCALES
        )
        self.merge_layer = nn.Sequential(
            named(br=norm_act(stacked)),
            nn.ChannelShuffle(len(self.SCALES)),
            cbr(stacked, channels, 3, groups=channels),
            nn.Conv2d(channels, out_channels, 1, bias=last),
        )
        self.br = nn.Identity() if last else named(br=norm_act(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        pyramid = [at_scale(x, stage, scale) for stage, scale in zip(self.stages, self.SCALES, strict=True)]
        return self.br(self.merge_layer(torch.cat(pyramid, dim=1)))


class GatedProjection(nn.Module):
    """(B, C_in, h, w) → (B, C_out, h, w): a grouped 3×3 convolution, its channels weighted by the frame's mean."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        gate = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), gate, nn.Sigmoid())
        self.expansion_layer = cbr(in_channels, out_channels, 3, groups=math.gcd(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.expansion_layer(x) * self.wt_layer(x)


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """A bias-free convolution that keeps the size (divided by `stride`), batch normalisation and, with `act`, PReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    last: dict[str, nn.Module] = {"act": nn.PReLU(out_channels)} if act else {}
    return named(conv=conv, bn=nn.BatchNorm2d(out_channels), **last)


def cbr(in_channels: int, out_channels: int, kernel: int, *, groups: int = 1) -> nn.Sequential:
    """The same, as the decoder's weights are named: `cbr.0`, `cbr.1`, `cbr.2`."""
    return named(cbr=nn.Sequential(*conv_norm(in_channels, out_channels, kernel, groups=groups)))


def norm_act(channels: int) -> nn.Sequential:
    """Batch normalisation and PReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


def named(**modules: nn.Module) -> nn.Sequential:
    """The modules one after the other, under their names."""
    sequence = nn.Sequential()
    for name, module in modules.items():
        sequence.add_module(name, module)
    return sequence


def halve(x: Tensor) -> Tensor:
    """(B, C, h, w) → (B, C, ceil(h/2), ceil(w/2)), as a 3×3 convolution of stride 2 has it."""
    return F.avg_pool2d(x, kernel_size=3, stride=2, padding=1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` bilinearly resized to (height, width), corners on corners as the weights were trained."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def add_resized(x: Tensor, coarse: Tensor) -> Tensor:
    """`x` plus `coarse` at the size of `x`."""
    height, width = x.shape[-2:]
    return x + resize(coarse, (height, width))


def at_scale(x: Tensor, stage: nn.Module, scale: float) -> Tensor:
    """`stage` applied to `x` at `scale` times its size, 5 pixels at least, and brought back to its size."""
    if scale == 1:
        return stage(x)
    height, width = x.shape[-2:]
    size = (height, width)
    if scale > 1:
        return F.adaptive_avg_pool2d(stage(resize(x, scaled(size, scale))), size)
    return resize(stage(F.adaptive_avg_pool2d(x, scaled(size, scale))), size)


@torch.fx.wrap
def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, rounded up, at least 5."""
    return max(5, math.ceil(size[0] * scale)), max(5, math.ceil(size[1] * scale))


MODELS["espnetv2"] = ESPNetv2
