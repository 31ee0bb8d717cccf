"""Resizing and degradation against their formulas, written out pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.ops.resize import degrade_bicubic, degrade_blur, resize_bicubic, upsample_bicubic


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def mirrored(place: int, length: int) -> int:
    """MATLAB's border, 1-based as there: 1…n, n…1, and so on."""
    order = [*range(1, length + 1), *range(length, 0, -1)]
    return order[(place - 1) % (2 * length)]


def imresize_row(row: np.ndarray, scale: float) -> np.ndarray:
    """MATLAB's contributions of one row, in its own 1-based terms, for as many taps as could matter."""
    narrow = min(1.0, scale)
    width = 4 / narrow
    result = []
    for out in range(1, math.ceil(round(len(row) * scale, 9)) + 1):
        centre = out / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(centre - width / 2)
        places = range(left, left + math.ceil(width) + 2)
        weights = [narrow * cubic(narrow * (centre - place)) for place in places]
        total = sum(w * row[mirrored(p, len(row)) - 1] for w, p in zip(weights, places, strict=True))
        result.append(total / sum(weights))
    return np.array(result)


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    rows = np.stack([imresize_row(row, scale) for row in image])
    return np.stack([imresize_row(column, scale) for column in rows.T]).T


@settings(max_examples=25)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    scale=st.sampled_from([2, 3, 4, 1 / 2, 1 / 3, 1 / 4, 0.7, 1.6, 1]),
    seed=st.integers(0, 99),
)
def test_any_scale_is_imresize(height: int, width: int, scale: float, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(0, 1, (height, width))
    resized = resize_bicubic(torch.from_numpy(image), scale).numpy()
    np.testing.assert_allclose(resized, imresize(image, scale), atol=1e-10)


def test_imresize_by_hand() -> None:
    # doubling, centre 1/4 pixel off: weights of Keys's kernel at 0.25, 0.75, 1.25, 1.75
    weights = np.array([cubic(x) for x in (1.25, 0.25, 0.75, 1.75)])
    assert weights.tolist() == [-0.0703125, 0.8671875, 0.2265625, -0.0234375]
    row = torch.tensor([[0.0, 1.0, 4.0, 9.0, 16.0]], dtype=torch.float64)
    # output 5 (from 0) sits at 2.25
    assert resize_bicubic(row, 2)[0, 5].item() == pytest.approx(weights @ [1, 4, 9, 16])


def test_reduction_equals_torchs_antialiased_bicubic_away_from_the_border() -> None:
    frames = torch.rand(1, 3, 48, 64, dtype=torch.float64)
    theirs = F.interpolate(frames, scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(
        resize_bicubic(frames, 0.25)[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (7, 5)])
def test_upsampling_as_a_convolution_is_the_same(scale: int, size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size)
    torch.testing.assert_close(upsample_bicubic(frames, scale), resize_bicubic(frames, scale), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 4])
def test_upsampling_keeps_its_precision_under_autocast(scale: int) -> None:
    frames = torch.rand(1, 3, 5, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        enlarged = upsample_bicubic(frames, scale)
    torch.testing.assert_close(enlarged, resize_bicubic(frames, scale), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_degradation_to_the_grey_level(scale: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, 24), dtype=np.uint8)
    degraded = degrade_bicubic(torch.from_numpy(frames), scale)
    expected = np.stack([imresize(frame.astype(np.float64), 1 / scale) for frame in frames]).clip(0, 255)
    assert degraded.dtype == torch.uint8
    assert np.abs(degraded.numpy() - expected).max() <= 0.5 + 1e-3
    unit = degrade_bicubic(torch.from_numpy(frames / 255.0), scale)
    np.testing.assert_allclose(unit.numpy(), expected / 255, atol=1e-9)


def blurred(image: np.ndarray, scale: int, size: int, start: int, border) -> np.ndarray:
    """A two-dimensional Gaussian of MATLAB's fspecial, applied at every place that is kept."""
    centre = (size - 1) / 2
    grid = np.mgrid[:size, :size] - centre
    kernel = np.exp(-(grid**2).sum(axis=0) / (2 * 1.6**2))
    kernel /= kernel.sum()
    height, width = image.shape
    before = (size - 1) // 2
    result = np.zeros((height // scale, width // scale))
    for i, j in np.ndindex(result.shape):
        for y, x in np.ndindex(kernel.shape):
            row = border(start + scale * i + y - before, height)
            column = border(start + scale * j + x - before, width)
            result[i, j] += kernel[y, x] * image[row, column]
    return result


@pytest.mark.parametrize(("scale", "size", "start"), [(4, 12, 1), (2, 12, 0), (3, 13, 1)])
def test_blur_degradation_of_both_kinds(scale: int, size: int, start: int) -> None:
    image = np.random.default_rng(1).uniform(0, 1, (12, 24))
    ours = degrade_blur(torch.from_numpy(image), scale).numpy()
    plain = blurred(image, scale, 13, 0, lambda place, length: mirrored(place + 1, length) - 1)
    np.testing.assert_allclose(ours, plain, atol=1e-9)
    ours = degrade_blur(torch.from_numpy(image), scale, centred=True).numpy()
    plain = blurred(image, scale, size, start, lambda place, length: min(max(place, 0), length - 1))
    np.testing.assert_allclose(ours, plain, atol=1e-9)


def test_only_the_centred_blur_keeps_a_ramp_in_place() -> None:
    """Inside, blurring leaves a ramp as it is; the pixel taken is the block's middle, or 1.5 pixels before it."""
    ramp = torch.arange(48, dtype=torch.float64).div(48).expand(48, 48)
    middle = torch.arange(12, dtype=torch.float64).mul(4).add(1.5).div(48)
    inside = (slice(2, -2), slice(2, -2))
    torch.testing.assert_close(degrade_blur(ramp, 4, centred=True)[inside], middle.expand(12, 12)[inside])
    torch.testing.assert_close(degrade_blur(ramp, 4)[inside], (middle - 1.5 / 48).expand(12, 12)[inside])


@pytest.mark.parametrize("degrade", [degrade_bicubic, degrade_blur])
def test_degradation_keeps_constants_and_range(degrade) -> None:
    grey = torch.full((2, 3, 8, 12), 77, dtype=torch.uint8)
    assert (degrade(grey, 4) == 77).all()
    steps = torch.zeros(1, 8, 16)
    steps[..., 7:] = 1
    assert ((degrade(steps, 2) >= 0) & (degrade(steps, 2) <= 1)).all()
    with pytest.raises(UserError, match=r"18x8 cannot be reduced 4 times"):
        degrade(torch.zeros(3, 8, 18), 4)


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(ValueError, match="scale must be above 0, got 0"):
        resize_bicubic(torch.rand(4, 4), 0)
