"""What our super-resolution networks share: their contract, bicubic and sub-pixel upscaling, padding to a multiple.

Each is `network(windows) -> frames`: windows (B, T, 3, h, w), RGB in 0…1; frames (B, 3, scale·h, scale·w), the centre
frame super-resolved, not clamped. `declares` describes what it declares: `window`, `scale`, `feature`,
`feature_channels` and `reach`.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.ops.resize import upsample_bicubic

SCALES = (2, 3, 4)


class SuperResolver(nn.Module):
    """The base of networks with a window: what they declare, checked, and their last layer.

    That layer starts at zero, so that a new network only enlarges [ours]. Errors: ValueError for a scale other than 2,
    3 and 4, or an even window.
    """

    feature: ClassVar[str] = "output"

    def __init__(self, *, window: int, scale: int, feature_channels: int, reach: int, output_kernel: int = 3) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window must be odd and at least 1, so that it has a centre frame, got {window}")
        self.window = window
        self.scale = scale
        self.feature_channels = feature_channels
        self.reach = reach
        self.output = nn.Conv2d(feature_channels, 3, output_kernel, padding=output_kernel // 2)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def centre(self, windows: Tensor) -> Tensor:
        """(B, 3, h, w) the centre frames. Errors: ValueError for windows of another length."""
        if windows.ndim != 5 or windows.shape[1] != self.window:
            raise ValueError(f"windows must be (B, {self.window}, 3, h, w), got {tuple(windows.shape)}")
        return windows[:, self.window // 2]


def pad_to_multiple(windows: Tensor, multiple: int) -> Tensor:
    """`windows` (B, T, C, h, w) continued to the right and downwards by their last pixels to the next multiple."""
    height, width = windows.shape[-2:]
    padded = F.pad(windows.flatten(0, 1), (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return padded.unflatten(0, windows.shape[:2])


def crop_like(frames: Tensor, reference: Tensor) -> Tensor:
    """The upper left of `frames`, as large as `reference`; copied, so that an export holds for every size."""
    for axis in (-2, -1):  # height, width
        kept = torch.arange(reference.shape[axis], device=frames.device)
        frames = frames.index_select(axis, kept)
    return frames


def keep_scale(module: nn.Module) -> None:
    """He's start for convolutions before a ReLU, leaky or not; for `network.apply`.

    Without normalisation PyTorch's own start makes activations smaller with every layer, and training makes no progress
    in its first hundreds of steps [ours].
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class SubPixelStage(nn.Module):
    """A 3×3 convolution and a pixel shuffle: (B, in_channels, h, w) to (B, out_channels, factor·h, factor·w)."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels * factor**2, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.factor)


class Bicubic(nn.Module):
    """Bicubic enlargement as a network of windows (B, 1, 3, h, w): what every network must beat. Nothing is learned."""

    window = 1

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, windows: Tensor) -> Tensor:
        return upsample_bicubic(windows[:, 0], self.scale)
