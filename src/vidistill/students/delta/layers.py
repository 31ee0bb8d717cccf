"""Single layers: which of them convert, their channels, their linear part, and a batch normalisation as a factor."""

from typing import TypeGuard

from torch import Tensor, nn

from vidistill.ops.modules import copied, trainable

ConvertibleLayer = nn.Conv2d | nn.Linear


def is_convertible_layer(module: nn.Module) -> TypeGuard[ConvertibleLayer]:
    """Whether it is exactly a Conv2d or Linear: a subclass may do anything."""
    return type(module) in (nn.Conv2d, nn.Linear)


def channels(layer: ConvertibleLayer) -> tuple[int, int]:
    """Input and output channels of a convolution or linear layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features


def without_bias(layer: ConvertibleLayer) -> ConvertibleLayer:
    """A copy of the layer that maps changes, which have no bias."""
    layer = copied(layer)
    layer.bias = None
    return trainable(layer)


def norm_as_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch normalisation in evaluation mode as factor and summand, each (channels,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
