"""Bicubic resizing as MATLAB's imresize does it, and the two degradations that super-resolution is measured with."""

import functools
import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.errors import UserError

BLUR_SIGMA = 1.6
BLUR_SIZE = 13  # pixels of the kernel, along each axis


def resize_bicubic(frames: Tensor, scale: float) -> Tensor:
    """(…, ceil(scale · H), ceil(scale · W)): frames resized as MATLAB's `imresize(frames, scale, "bicubic")`.

    frames: (…, H, W), floating point, any range; the result is not clamped. Keys's kernel with a = −0.5, stretched by
    1/scale on reduction (antialiasing), border pixels mirrored with the edge repeated, weights summing to 1. One axis
    after the other; the result of the first is not rounded (MATLAB rounds it when it is given uint8).
    """
    if scale <= 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    for _ in range(2):  # along rows, then, transposed, along columns
        weights, sources = _taps(frames.shape[-1], scale)
        frames = _weighted_sum(frames, weights.to(frames), sources.to(frames.device)).mT
    return frames.contiguous()


def _weighted_sum(frames: Tensor, weights: Tensor, sources: Tensor) -> Tensor:
    """Σ_k weights_k · frames[…, sources_k], tap by tap so that memory does not grow with the number of taps.

    sources: (taps, new length); weights: (taps, new length), or (taps,) where they are the same for all pixels.
    """
    result = torch.zeros_like(frames[..., sources[0]])
    for weight, source in zip(weights, sources, strict=True):
        result += weight * frames[..., source]
    return result


@functools.lru_cache(maxsize=64)
def _taps(length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Weights, float64, and the source pixels that they belong to, both (taps, new length)."""
    new_length = math.ceil(round(length * scale, 9))  # 9 × (1/3) is not quite 3
    stretch = max(1.0, 1 / scale)
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(centres - 2 * stretch).long() + 1
    sources = first + torch.arange(math.ceil(4 * stretch))[:, None]
    weights = _cubic((centres - sources) / stretch)
    return weights / weights.sum(dim=0), _inside(sources, length, replicated=False)


def _cubic(x: Tensor) -> Tensor:
    """Keys's cubic convolution kernel with a = −0.5, which is 0 from |x| = 2 on (Keys 1981, eq. 15)."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def upsample_bicubic(frames: Tensor, scale: int) -> Tensor:
    """(B, C, scale·H, scale·W): `resize_bicubic` by a whole number, as one convolution that exports and compiles.

    frames: (B, C, H, W). Their precision is kept, under autocast too: a network adds what it learned to the result.
    """
    batch, channels, height, width = frames.shape
    padded = _mirrored(_mirrored(frames, -1), -2).reshape(batch * channels, 1, height + 4, width + 4)
    offsets = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = _cubic(offsets[:, None] - torch.arange(-2, 3))  # (scale, 5)
    kernels = torch.einsum("ik,jl->ijkl", taps, taps).reshape(scale**2, 1, 5, 5)  # one for each place inside a pixel
    device = frames.device.type
    has_autocast = torch.amp.is_autocast_available(device)  # the meta device has none
    with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
        fine = F.pixel_shuffle(F.conv2d(padded, kernels.to(frames)), scale)
    return fine.reshape(batch, channels, scale * height, scale * width)


def _mirrored(frames: Tensor, axis: int) -> Tensor:
    """`frames` with two more pixels at both ends of the axis, mirrored with the edge repeated, whatever its length."""
    length = frames.shape[axis]
    first, last = frames.narrow(axis, 0, 1), frames.narrow(axis, length - 1, 1)
    second = frames.narrow(axis, min(1, length - 1), 1)
    last_but_one = frames.narrow(axis, max(0, length - 2), 1)
    return torch.cat([second, first, frames, last, last_but_one], dim=axis)


def degrade_bicubic(frames: Tensor, scale: int) -> Tensor:
    """BI: frames reduced `scale` times by MATLAB's antialiased bicubic.

    frames: (…, H, W), uint8, or floating point in 0…1; the result is of the same type, clamped, and rounded if uint8.
    Errors: UserError where the scale does not divide the size.
    """
    _require_divisible(frames, scale)
    return _like(resize_bicubic(_floating(frames), 1 / scale), frames)


def degrade_blur(frames: Tensor, scale: int, *, centred: bool = False) -> Tensor:
    """BD: frames blurred by a Gaussian of σ 1.6, then every `scale`-th pixel.

    frames: as in `degrade_bicubic`. The default is that of Jo et al. 2018 (DUF): 13×13, mirrored border (the edge
    repeated), pixels 0, scale, 2·scale …, so that the result is shifted by (scale − 1)/2 against `degrade_bicubic`:
    flip patches before they are degraded, or the shift turns with them.
    centred: as in the BDx4 files that came with BasicVSR (Chan et al. 2021): at an even scale a 12×12 kernel whose
    centre lies between pixels, replicated border, pixels from (scale − 1) // 2 on; no shift.
    Errors: UserError where the scale does not divide the size.
    """
    _require_divisible(frames, scale)
    size = BLUR_SIZE - 1 if centred and scale % 2 == 0 else BLUR_SIZE
    start = (scale - 1) // 2 if centred else 0
    offsets = torch.arange(size) - (size - 1) // 2
    weights = torch.exp(-((offsets - offsets.double().mean()) ** 2) / (2 * BLUR_SIGMA**2))
    weights = (weights / weights.sum()).to(_floating(frames))
    blurred = _floating(frames)
    for _ in range(2):
        length = blurred.shape[-1]
        places = torch.arange(start, length, scale) + offsets[:, None]
        sources = _inside(places, length, replicated=centred).to(frames.device)
        blurred = _weighted_sum(blurred, weights, sources).mT
    return _like(blurred.contiguous(), frames)


def _inside(places: Tensor, length: int, *, replicated: bool) -> Tensor:
    """Places with those beyond 0…length−1 moved inside: to the edge, or mirrored with the edge repeated."""
    if replicated:
        return places.clamp(0, length - 1)
    places = places % (2 * length)
    return torch.where(places < length, places, 2 * length - 1 - places)


def _require_divisible(frames: Tensor, scale: int) -> None:
    height, width = frames.shape[-2:]
    if height % scale or width % scale:
        raise UserError(
            f"frames of {width}x{height} cannot be reduced {scale} times: the scale must divide the size; "
            "crop the frames to a multiple of it"
        )


def _floating(frames: Tensor) -> Tensor:
    return frames if frames.is_floating_point() else frames.float()


def _like(result: Tensor, frames: Tensor) -> Tensor:
    """`result` in the range and of the type of `frames`."""
    if frames.is_floating_point():
        return result.clamp(0, 1)
    return result.round().clamp(0, 255).to(frames.dtype)
