"""Vid4: the literature's figures of bicubic enlargement. VIDISTILL_DATA names the folder; see CONTRIBUTING.md."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vidistill.data.datasets.super_resolution import vid4
from vidistill.ops.image_quality import luma, psnr, ssim
from vidistill.ops.resize import degrade_bicubic, resize_bicubic

pytestmark = pytest.mark.real_data
DATA = Path(os.environ.get("VIDISTILL_DATA", "data"))


@pytest.mark.parametrize(
    ("clip", "num_frames", "psnr_y", "ssim_y"), [("calendar", 41, 20.39, 0.5720), ("city", 34, 25.16, 0.6028)]
)
def test_bicubic_times_four(clip: str, num_frames: int, psnr_y: float, ssim_y: float) -> None:
    """BI, low-resolution frames rounded to uint8, Y not rounded, no border cropped, mean over all frames."""
    (sequence,) = vid4(DATA / "vid4", clips=[clip]).sequences
    scores = []
    for image in sequence.images():
        low = degrade_bicubic(torch.from_numpy(image).movedim(-1, 0), 4)
        enlarged = resize_bicubic(low.float(), 4).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy()
        ours, truth = luma(enlarged), luma(image)
        scores.append((psnr(ours, truth), ssim(ours, truth)))
    assert len(scores) == num_frames
    found = np.mean(scores, axis=0)
    assert found[0] == pytest.approx(psnr_y, abs=0.02)
    assert found[1] == pytest.approx(ssim_y, abs=0.002)
