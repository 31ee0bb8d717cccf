"""Networks small enough to train in a test."""

import torch
from torch import Tensor, nn


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
