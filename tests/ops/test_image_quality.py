"""PSNR and SSIM against hand-worked values and their formulas, window by window."""

import numpy as np
import pytest

from vidistill.ops.image_quality import luma, psnr, ssim


def noisy_pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    noise = rng.integers(-20, 21, shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), image


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    # MATLAB's rgb2ycbcr gives black 16, white 235, and the primaries the rows of its matrix
    assert luma(colours)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_psnr_by_hand() -> None:
    zeros, fives = np.zeros((2, 2, 3), dtype=np.uint8), np.full((2, 2, 3), 5, dtype=np.uint8)
    assert psnr(zeros, fives) == pytest.approx(10 * np.log10(255**2 / 25)) == pytest.approx(34.1514, abs=1e-4)
    fives[:, 0] = 0
    assert psnr(zeros, fives) == pytest.approx(34.1514 + 10 * np.log10(2), abs=1e-4)
    assert psnr(fives, fives) == float("inf")
    # 0 - 5 does not wrap around
    assert psnr(zeros, fives) == psnr(fives, zeros)


def plain_ssim(first: np.ndarray, second: np.ndarray) -> float:
    grid = np.mgrid[-5:6, -5:6]
    window = np.exp(-(grid**2).sum(axis=0) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = 6.5025, 58.5225
    values = []
    for i in range(first.shape[0] - 10):
        for j in range(first.shape[1] - 10):
            x, y = (plane[i : i + 11, j : j + 11].astype(np.float64) for plane in (first, second))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_ssim_is_its_formula() -> None:
    image, truth = noisy_pair((17, 23, 3))
    channels = [plain_ssim(image[..., c], truth[..., c]) for c in range(3)]
    assert ssim(image, truth) == pytest.approx(np.mean(channels), abs=1e-9)
    assert ssim(luma(image), luma(truth)) == pytest.approx(plain_ssim(luma(image), luma(truth)), abs=1e-9)
    assert ssim(truth, truth) == pytest.approx(1)


def test_images_that_cannot_be_compared() -> None:
    image, _ = noisy_pair((12, 12, 3))
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match="must have one shape to be compared"):
            measure(image, image[1:])
    with pytest.raises(ValueError, match="11x11 or more, got"):
        ssim(image[:10], image[:10])
