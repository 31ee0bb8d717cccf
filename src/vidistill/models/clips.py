"""What every clip classifier promises, and what they share: clips as frames, features of one form, sizes that work."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.declares import LAYOUTS, FeatureLayout, declared
from vidistill.ops.macs import on_meta

LARGEST_TRIED = 1024
ONE_VALUE = "Expected more than 1 value per channel"  # torch's words


class ClipNetwork(Protocol):
    """A classifier of clips: `network(clips)` gives logits (B, K) for clips (B, T, 3, H, W), normalised RGB.

    stages: dotted paths of its feature stages in order; the last one's output is what is pooled for the classifier.
    classifier: dotted path of the layer that gives the logits, a Linear (in torchvision's S3D a 1×1×1 convolution).
    feature_layout: what a stage returns. "frames": (B·T, C, h, w); "channels_first": (B, C, T', h, w);
    "channels_last": (B, T', h, w, C).
    A network that takes one shape of clip only says so in a further attribute, clip_shape: (T, H, W).
    """

    stages: tuple[str, ...]
    classifier: str
    feature_layout: FeatureLayout

    def __call__(self, clips: Tensor) -> Tensor: ...


def to_frames(clips: Tensor) -> Tensor:
    """(B·T, C, H, W) of clips (B, T, C, H, W). Errors: ValueError for another number of axes."""
    if clips.dim() != 5:
        raise ValueError(f"clips are (B, T, C, H, W), not {tuple(clips.shape)}")
    return clips.flatten(0, 1)


def to_clip_features(features: Tensor, layout: FeatureLayout, *, num_clips: int) -> Tensor:
    """(B, T', C, h, w) of a stage's output in the network's `feature_layout`.

    Errors: ValueError where the layout is unknown or the output is not of `num_clips` clips in it.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no feature layout '{layout}'; there is: {', '.join(LAYOUTS)}")
    fits = features.shape[0] % num_clips == 0 if layout == "frames" else features.shape[0] == num_clips
    if features.dim() != (4 if layout == "frames" else 5) or not fits:
        raise ValueError(f"features {tuple(features.shape)} are not of {num_clips} clips as {layout}")
    if layout == "frames":
        return features.unflatten(0, (num_clips, features.shape[0] // num_clips))
    return features.transpose(1, 2) if layout == "channels_first" else features.permute(0, 1, 4, 2, 3)


def linear_classifier(num_features: int, num_classes: int) -> nn.Linear:
    """The layer that gives the logits, started as TSN's: normal with standard deviation 0.001, bias 0."""
    linear = nn.Linear(num_features, num_classes)
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return linear


@contextmanager
def size_errors(network: nn.Module, clips: Tensor) -> Iterator[None]:
    """Turns what torch says of a clip too small for `network` into a UserError that names the smallest that works."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if clips.is_meta:  # nobody's clip: the search for the smallest size runs here too
            raise
        num_frames, (height, width) = clips.shape[1], clips.shape[-2:]
        if isinstance(error, ValueError):
            if ONE_VALUE not in str(error):
                raise
            raise UserError(
                f"a batch of {len(clips)} clips of {num_frames} frames of {height}×{width} leaves a normalisation one "
                "value, which has no spread; raise optim.batch_size, or the size"
            ) from error
        try:
            smallest = smallest_size(network, num_frames=num_frames)
        except UserError as nowhere:
            raise UserError(f"{nowhere}; torch says: {str(error).splitlines()[0]}") from error
        if min(height, width) >= smallest:
            raise
        raise UserError(
            f"a clip of {height}×{width} is too small for this network, whose last stage vanishes; the smallest that "
            f"works with {num_frames} frames is {smallest}×{smallest}"
        ) from error


def smallest_size(network: nn.Module, *, num_frames: int = 8) -> int:
    """The smallest square, in pixels, that every stage of a clip network can take, found without computing anything.

    Errors: UserError where no square up to 1024 pixels works with that many frames.
    """
    fixed = declared(network).clip_shape
    if fixed is not None:
        return max(fixed[1:])
    shadow = on_meta(network).eval()
    above = 1
    while not _runs(shadow, num_frames, above):
        above *= 2
        if above > LARGEST_TRIED:
            raise UserError(
                f"the network takes no clip of {num_frames} frames at any size up to {LARGEST_TRIED}×{LARGEST_TRIED}; "
                "give it more frames"
            )
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (below, middle) if _runs(shadow, num_frames, middle) else (middle, above)
    return above


@torch.no_grad()
def _runs(shadow: nn.Module, num_frames: int, size: int) -> bool:
    dtype = next((parameter.dtype for parameter in shadow.parameters()), torch.float32)
    try:
        shadow(torch.empty(1, num_frames, 3, size, size, dtype=dtype, device="meta"))
    except RuntimeError:
        return False
    return True
