"""How near a restored image is to the true one: PSNR and SSIM, on RGB or on luma, after the field's protocol.

Images are compared as they would be stored: uint8, after clamping and rounding. All sums are in float64.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

LUMA_WEIGHTS = (65.481, 128.553, 24.966)  # of R, G, B in 0…1; ITU-R BT.601 as MATLAB's rgb2ycbcr rounds it
LUMA_OFFSET = 16.0
PEAK = 255.0
SSIM_SIZE = 11  # side of the Gaussian window
SSIM_SIGMA = 1.5

Plane = NDArray[np.float64] | NDArray[np.uint8]  # (H, W) or (H, W, C), 0…255


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(…,) Y, 16…235, of an RGB image (…, 3): MATLAB's `rgb2ycbcr` before it rounds."""
    return LUMA_OFFSET + image.astype(np.float64) @ (np.array(LUMA_WEIGHTS) / PEAK)


def psnr(image: Plane, truth: Plane) -> float:
    """10 · log10(255² / mse) in dB, with the error over all pixels and channels; infinite for equal images."""
    _require_alike(image, truth)
    error = float(np.mean((image.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(image: Plane, truth: Plane) -> float:
    """Structural similarity (Wang et al. 2004), mean over the valid region and the channels; 1 for equal images.

    Gaussian window of 11×11, σ 1.5, only where it lies inside; K1 = 0.01, K2 = 0.03, population variances.
    Errors: ValueError for images smaller than the window or of different shapes.
    """
    _require_alike(image, truth)
    if min(image.shape[:2]) < SSIM_SIZE:
        raise ValueError(f"SSIM needs images of {SSIM_SIZE}x{SSIM_SIZE} or more, got {image.shape}")
    x, y = image.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def _windowed(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means wherever the window lies inside: (H − 10, W − 10, …)."""
    edge = SSIM_SIZE // 2
    smooth = cv2.GaussianBlur(plane, (SSIM_SIZE, SSIM_SIZE), SSIM_SIGMA)
    return np.asarray(smooth, dtype=np.float64)[edge:-edge, edge:-edge]


def _require_alike(image: Plane, truth: Plane) -> None:
    if image.shape != truth.shape:
        raise ValueError(f"images must have one shape to be compared, got {image.shape} and {truth.shape}")
