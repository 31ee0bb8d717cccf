"""VSRNet: three convolutions on bicubically enlarged frames.

Source: Kappeler, Yoo, Dai & Katsaggelos, "Video Super-Resolution with Convolutional Neural Networks", 2016. Where we
differ: frames are joined at the input (the paper's architecture a; its best joins them after the first layer and has
0.27 M parameters), not aligned beforehand, RGB instead of luma and centred, and what the network gives is added to the
bicubic centre frame.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.models.upscaling import SuperResolver, keep_scale
from vidistill.ops.resize import upsample_bicubic

GREY = 0.5  # subtracted from the frames: behind positive values alone ReLUs die at the rates that others learn at


class VSRNet(SuperResolver):
    """9×9, 5×5 and 5×5 convolutions at the high resolution, over the concatenated enlarged frames."""

    def __init__(self, *, scale: int, window: int, channels: int, feature_channels: int) -> None:
        super().__init__(window=window, scale=scale, feature_channels=feature_channels, reach=8, output_kernel=5)
        self.first = nn.Conv2d(3 * window, channels, 9, padding=4)
        self.second = nn.Conv2d(channels, feature_channels, 5, padding=2)
        for part in (self.first, self.second):
            part.apply(keep_scale)

    def forward(self, windows: Tensor) -> Tensor:
        self.centre(windows)
        enlarged = upsample_bicubic(windows.flatten(1, 2), self.scale)
        feature = F.relu(self.second(F.relu(self.first(enlarged - GREY))))
        middle = 3 * (self.window // 2)
        return enlarged[:, middle : middle + 3] + self.output(feature)


def vsrnet(scale: int = 4, *, window: int = 5, channels: int = 64, feature_channels: int = 32) -> VSRNet:
    """VSRNet on RGB: 131 thousand parameters; the feature is the activation after the second convolution."""
    return VSRNet(scale=scale, window=window, channels=channels, feature_channels=feature_channels)
