import math

import pytest
import torch

from vidistill.tasks.segmentation.task import Segmentation

# two pixels, two classes: the first is sure of class 0, the second undecided
LOGITS = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, 0.0]]]])


def test_cross_entropy_by_hand() -> None:
    labels = torch.tensor([[[0, 1]]])
    expected = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    assert Segmentation(num_classes=2).supervise(LOGITS, labels)["task"].item() == pytest.approx(expected)
    weighted = Segmentation(num_classes=2, class_weights=[1.0, 3.0]).supervise(LOGITS, labels)["task"]
    assert weighted.item() == pytest.approx((-math.log(3 / 4) - 3 * math.log(1 / 2)) / 2)


def test_ignored_pixels_and_frames_do_not_count() -> None:
    logits, labels = LOGITS.repeat(2, 1, 1, 1), torch.tensor([[[0, 255]], [[255, 255]]])
    found = Segmentation(num_classes=2).supervise(logits, labels)["task"].item()
    assert found == pytest.approx(-math.log(3 / 4) / 2), "mean over pixels of each frame, then over the two frames"


def test_divergence_by_hand() -> None:
    teacher = torch.zeros_like(LOGITS)
    # KL(½,½ ‖ ¾,¼) on the first pixel, 0 on the second
    expected = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2
    assert Segmentation(num_classes=2).compare(LOGITS, teacher)["teacher"].item() == pytest.approx(expected)


def test_decoding_takes_the_largest() -> None:
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    assert Segmentation(num_classes=2).decode(logits, size=(1, 2)).tolist() == [[[0, 1]]]


def test_weights_must_match_the_classes() -> None:
    with pytest.raises(ValueError, match="3 class_weights for 2 classes"):
        Segmentation(num_classes=2, class_weights=[1.0, 1.0, 1.0])
