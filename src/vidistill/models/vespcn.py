"""VSRNet and VESPCN: super-resolution without and with motion compensation, both small.

VSRNet: three convolutions on bicubically enlarged frames. Source: Kappeler, Yoo, Dai & Katsaggelos, "Video
Super-Resolution with Convolutional Neural Networks", 2016. Where we differ: frames are joined at the input (the paper's
architecture a; its best joins them after the first layer and has 0.27 M parameters) and not aligned beforehand; RGB,
centred, instead of luma; what the network returns is added to the bicubic centre frame.

VESPCN: neighbours warped onto the centre frame, then a sub-pixel network on low-resolution frames. Source: Caballero et
al., "Real-Time Video Super-Resolution with Spatio-Temporal Networks and Motion Compensation", 2017 (arXiv 1611.05250),
its early fusion of nine layers. Where we differ: RGB instead of luma; the last of the nine layers comes after the pixel
shuffle, so that there is a high-resolution feature; the result is added to the bicubic centre frame; flows are bounded
in pixels and start at zero.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.upscaling import SubPixelStage, SuperResolver, crop_like, keep_scale, pad_to_multiple
from vidistill.ops.flow import warp_bilinear
from vidistill.ops.resize import upsample_bicubic

GREY = 0.5  # subtracted from frames: after positive inputs alone, ReLUs die at the other networks' learning rates
COARSE_STRIDE = 4  # pixels, of the coarse flow; frames are padded to a multiple of it
FINE_STRIDE = 2
LARGEST_FLOW = 16.0  # low-resolution pixels along x or y, for either flow


class VSRNet(SuperResolver):
    """9×9, 5×5 and 5×5 convolutions of the concatenated frames at the high resolution."""

    def __init__(self, *, scale: int, window: int, channels: int, feature_channels: int) -> None:
        super().__init__(window=window, scale=scale, feature_channels=feature_channels, reach=8, output_kernel=5)
        self.first = nn.Conv2d(3 * window, channels, 9, padding=4)
        self.second = nn.Conv2d(channels, feature_channels, 5, padding=2)
        for part in (self.first, self.second):
            part.apply(keep_scale)

    def forward(self, windows: Tensor) -> Tensor:
        self.centre(windows)  # checks their length
        enlarged = upsample_bicubic(windows.flatten(1, 2), self.scale)  # (B, T·3, scale·h, scale·w)
        feature = F.relu(self.second(F.relu(self.first(enlarged - GREY))))
        middle = 3 * (self.window // 2)
        return enlarged[:, middle : middle + 3] + self.output(feature)


def vsrnet(scale: int = 4, *, window: int = 5, channels: int = 64, feature_channels: int = 32) -> VSRNet:
    """VSRNet on RGB: 131 thousand parameters; the feature is the activation after the second convolution.

    Args:
        scale: 2, 3 or 4.
        window: frames that it looks at, odd.
        channels: of the first layer.
        feature_channels: of the second, at the frames' high resolution.

    Returns:
        An untrained network of windows (B, window, 3, h, w), RGB in 0…1, that returns frames (B, 3, scale·h, scale·w).

    Raises:
        ValueError: for another scale, or an even window.
    """
    return VSRNet(scale=scale, window=window, channels=channels, feature_channels=feature_channels)


class FlowNetwork(nn.Module):
    """A flow (B, 2, h, w) in pixels from stacked frames (B, C, h, w), estimated at 1/stride of their size.

    It is zero at the start. strides: of the layers before the last; the strided ones are 5×5, the others 3×3.
    """

    def __init__(self, in_channels: int, channels: int, strides: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for step in strides:
            kernel = 5 if step > 1 else 3
            self.layers.append(nn.Conv2d(in_channels, channels, kernel, stride=step, padding=kernel // 2))
            in_channels = channels
        self.layers.apply(keep_scale)
        self.last = nn.Conv2d(channels, 2 * stride**2, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return LARGEST_FLOW * F.pixel_shuffle(torch.tanh(self.last(x)), self.stride)


class MotionCompensation(nn.Module):
    """Source frames warped onto target frames (B, 3, h, w) by a coarse flow and a fine one that corrects it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coarse = FlowNetwork(6, channels, (2, 1, 2, 1), COARSE_STRIDE)  # two frames
        self.fine = FlowNetwork(11, channels, (2, 1, 1, 1), FINE_STRIDE)  # the two, the flow and the warped frame

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        coarse = self.coarse(torch.cat([target, source], dim=1))
        warped = warp_bilinear(source, coarse)
        fine = self.fine(torch.cat([target, source, coarse, warped], dim=1))
        return warp_bilinear(source, coarse + fine)


class VESPCN(SuperResolver):
    """Motion compensation, seven 3×3 layers on the concatenated frames, a sub-pixel layer, and the output layer."""

    def __init__(self, *, scale: int, window: int, channels: int, feature_channels: int) -> None:
        super().__init__(window=window, scale=scale, feature_channels=feature_channels, reach=40)
        self.motion = MotionCompensation(channels)
        layers: list[nn.Module] = [nn.Conv2d(3 * window, channels, 3, padding=1), nn.ReLU()]
        for _ in range(6):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.upscale = SubPixelStage(channels, feature_channels, scale)
        for part in (self.trunk, self.upscale):
            part.apply(keep_scale)

    def forward(self, windows: Tensor) -> Tensor:
        base = upsample_bicubic(self.centre(windows), self.scale)
        padded = pad_to_multiple(windows, COARSE_STRIDE)
        feature = F.relu(self.upscale(self.trunk(self._aligned(padded))))
        return base + crop_like(self.output(feature), base)

    def _aligned(self, windows: Tensor) -> Tensor:
        """(B, T·3, h, w) the frames in order, all neighbours warped onto the centre in one batch."""
        middle = self.window // 2
        before, target, after = windows[:, :middle], windows[:, middle], windows[:, middle + 1 :]
        neighbours = torch.cat([before, after], dim=1)
        targets = target[:, None].expand_as(neighbours)
        warped = self.motion(targets.flatten(0, 1), neighbours.flatten(0, 1)).unflatten(0, neighbours.shape[:2])
        return torch.cat([warped[:, :middle], target[:, None], warped[:, middle:]], dim=1).flatten(1, 2)


def vespcn(scale: int = 4, *, window: int = 3, channels: int = 24, feature_channels: int = 8) -> VESPCN:
    """VESPCN of nine layers with 24 features; the feature is the activation after the pixel shuffle.

    Args:
        scale: 2, 3 or 4.
        window: frames that it looks at, odd, at least 3.
        channels: of the layers at the frames' own resolution.
        feature_channels: of the last feature, at the frames' high resolution.

    Returns:
        An untrained network of windows (B, window, 3, h, w), RGB in 0…1, that returns frames (B, 3, scale·h, scale·w).

    Raises:
        ValueError: for another scale, or a window that is even or below 3.
    """
    if window < 3:
        raise ValueError(f"window must be at least 3, as motion compensation needs neighbours, got {window}")
    return VESPCN(scale=scale, window=window, channels=channels, feature_channels=feature_channels)
