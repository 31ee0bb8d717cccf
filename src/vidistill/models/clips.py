"""What classifiers of clips share: clips as frames, features in one form, sizes that work.

Each is `network(clips) -> logits`: clips (B, T, 3, H, W), normalised RGB; logits (B, K). `declares` describes what it
declares: `stages`, `classifier`, `feature_layout` and `clip_shape`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.declares import LAYOUTS, FeatureLayout, declared
from vidistill.ops.macs import on_meta

LARGEST_TRIED = 1024
ONE_VALUE = "Expected more than 1 value per channel"  # in torch's error


def to_frames(clips: Tensor) -> Tensor:
    """(B·T, C, H, W) of clips (B, T, C, H, W). Errors: ValueError for another number of axes."""
    if clips.dim() != 5:
        raise ValueError(f"clips must be (B, T, C, H, W), got {tuple(clips.shape)}")
    return clips.flatten(0, 1)


def to_clip_features(features: Tensor, layout: FeatureLayout, *, num_clips: int) -> Tensor:
    """(B, T', C, h, w) of a stage's output in the network's `feature_layout`.

    Errors: ValueError where the layout is unknown or the output is not of `num_clips` clips in it.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"feature_layout must be one of {', '.join(LAYOUTS)}, got '{layout}'")
    fits = features.shape[0] % num_clips == 0 if layout == "frames" else features.shape[0] == num_clips
    if features.dim() != (4 if layout == "frames" else 5) or not fits:
        raise ValueError(f"features must be of {num_clips} clips in the layout {layout}, got {tuple(features.shape)}")
    if layout == "frames":
        return features.unflatten(0, (num_clips, features.shape[0] // num_clips))
    return features.transpose(1, 2) if layout == "channels_first" else features.permute(0, 1, 4, 2, 3)


def linear_classifier(num_features: int, num_classes: int) -> nn.Linear:
    """The layer that gives the logits, with TSN's start: weights normal with standard deviation 0.001, bias 0."""
    linear = nn.Linear(num_features, num_classes)
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return linear


@contextmanager
def size_errors(network: nn.Module, clips: Tensor) -> Iterator[None]:
    """Turns torch's error for a clip too small for `network` into a UserError that names the smallest that works."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if clips.is_meta:  # from `smallest_size`, which runs the network here too
            raise
        num_frames, (height, width) = clips.shape[1], clips.shape[-2:]
        if isinstance(error, ValueError):
            if ONE_VALUE not in str(error):
                raise
            raise UserError(
                f"a batch of {len(clips)} clips of {num_frames} frames of {width}x{height} leaves a normalisation one "
                "value, which has no spread; raise optim.batch_size, or the size"
            ) from error
        try:
            smallest = smallest_size(network, num_frames=num_frames)
        except UserError as nowhere:
            raise UserError(f"{nowhere} (torch's error: {str(error).splitlines()[0]})") from error
        if min(height, width) >= smallest:
            raise
        raise UserError(
            f"a clip of {width}x{height} is too small for this network, whose last stage vanishes; the smallest that "
            f"works with {num_frames} frames is {smallest}x{smallest}"
        ) from error


def smallest_size(network: nn.Module, *, num_frames: int = 8) -> int:
    """The side, in pixels, of the smallest square that every stage of a clip network can take, found on shapes alone.

    Errors: UserError where no square up to 1024 pixels works with that many frames.
    """
    fixed = declared(network).clip_shape
    if fixed is not None:
        return max(fixed[1:])
    shadow = on_meta(network).eval()  # without values: only shapes are tried
    above = 1
    while not _runs(shadow, num_frames, above):
        above *= 2
        if above > LARGEST_TRIED:
            raise UserError(
                f"the network takes no clip of {num_frames} frames at any size up to {LARGEST_TRIED}x{LARGEST_TRIED}; "
                "give it more frames"
            )
    below = above // 2  # the smallest lies above `below`, and is at most `above`
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
