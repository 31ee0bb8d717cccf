import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.ops.metrics import ConfusionMatrix, Share


def test_iou_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    labels = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    predictions = np.array([[0, 1, 1, 2]], dtype=np.uint8)
    matrix.update(labels, predictions)
    # class 0: 1 of 2; class 1: 1 of 2; class 2 never counted, its one prediction fell on an ignored pixel
    assert matrix.iou().tolist() == [0.5, 0.5, 0.0]
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.mean_iou(present_only=True) == pytest.approx(0.5)


def test_nothing_counted_is_unknown() -> None:
    assert ConfusionMatrix(2).mean_iou() is None
    assert Share().value is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=60))
def test_iou_is_that_of_sets(pixels) -> None:
    labels, predictions, valid = (np.array(values) for values in zip(*pixels, strict=True))
    labels = np.where(labels == 4, 255, labels).astype(np.uint8)
    matrix = ConfusionMatrix(4)
    for part in (slice(0, 7), slice(7, None)):  # frame by frame is the same as all at once
        matrix.update(labels[part], predictions[part].astype(np.uint8), valid[part])
    counted = [(i, a, b) for i, (a, b, v) in enumerate(zip(labels, predictions, valid, strict=True)) if v and a != 255]
    for k in range(4):
        true, found = {i for i, a, _ in counted if a == k}, {i for i, _, b in counted if b == k}
        assert matrix.iou()[k] == pytest.approx(len(true & found) / max(1, len(true | found)))
