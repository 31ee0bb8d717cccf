import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.sampling import frame_slice
from vidistill.data.sequences.boxes import BoxedSequence, Boxes, boxes_of
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError


def test_types_and_shapes() -> None:
    boxes = Boxes.of([[0, 1, 2, 3]], [2], instances=[7], crowd=[True])
    assert (boxes.xyxy.dtype, boxes.labels.dtype, boxes.instances.dtype) == (np.float32, np.int64, np.int64)
    assert len(boxes) == 1
    assert Boxes.of([], []).xyxy.shape == (0, 4)
    with pytest.raises(ValueError, match="labels"):
        Boxes.of([[0, 1, 2, 3]], [1, 2])
    with pytest.raises(ValueError, match="scores"):
        Boxes.of([[0, 1, 2, 3]], [1], scores=[0.5, 0.5])


def test_clipping_worked_by_hand() -> None:
    boxes = Boxes.of([[-2, 1, 3, 4], [1, 1, 2, 2], [9, 9, 12, 12], [5, 5, 9, 7]], [0, 1, 2, 3], instances=[4, 5, 6, 7])
    clipped = boxes.clipped((6, 8))  # 8 wide, 6 high
    assert clipped.xyxy.tolist() == [[0, 1, 3, 4], [1, 1, 2, 2], [5, 5, 8, 6]]
    assert clipped.labels.tolist() == [0, 1, 3]
    assert clipped.instances.tolist() == [4, 5, 7]
    assert (clipped.num_clipped, clipped.num_outside, clipped.size) == (2, 1, (6, 8))
    again = clipped.clipped((6, 8))
    assert (again.num_clipped, again.num_outside) == (2, 1)  # of before, and none now


@given(st.lists(st.tuples(*[st.integers(-20, 40)] * 4), max_size=8), st.integers(1, 30), st.integers(1, 30))
def test_a_clipped_box_holds_the_pixels_that_both_hold(corners, height: int, width: int) -> None:
    corners = [(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in corners]
    boxes = Boxes.of(corners, range(len(corners)))
    clipped = boxes.clipped((height, width))
    pixels = {
        label: {(x, y) for x in range(left, right) for y in range(top, bottom) if 0 <= x < width and 0 <= y < height}
        for label, (left, top, right, bottom) in enumerate(corners)
    }
    assert set(clipped.labels.tolist()) == {label for label, inside in pixels.items() if inside}
    for label, (left, top, right, bottom) in zip(clipped.labels, clipped.xyxy.astype(int), strict=True):
        assert pixels[label] == {(x, y) for x in range(left, right) for y in range(top, bottom)}


@pytest.mark.parametrize(
    ("box", "label", "fault"),
    [
        ([1, 2, np.nan, 4], 0, "frame 3: box 1 .*finite"),
        ([1, 2, np.inf, 4], 0, "finite"),
        ([5, 2, 5, 4], 0, "must have a width and a height above 0"),
        ([5, 6, 7, 4], 0, "must have a width and a height above 0"),
        ([1, 2, 3, 4], 2, "class from 0 to 1, got 2"),
        ([1, 2, 3, 4], -1, "class from 0 to 1, got -1"),
    ],
)
def test_bad_boxes_are_named(box, label: int, fault: str) -> None:
    boxes = Boxes.of([[0, 0, 1, 1], box], [0, label])
    with pytest.raises(UserError, match=fault):
        boxes.checked(num_classes=2, where="gt.txt, frame 3")


def test_boxes_of_any_sequence() -> None:
    assert boxes_of(ImageSequence("plain", []), 0) is None
    sequence = synthetic(num_sequences=1).sequences[0]
    assert len(boxes_of(sequence, 0)) > 0


def test_resized_frames_keep_their_boxes_in_place() -> None:
    scene = synthetic(num_sequences=1, size=(64, 97)).sequences[0]
    sequence = BoxedSequence(scene, [scene.boxes(i).clipped((64, 97)) for i in range(len(scene))], 32)
    assert sequence.image(0).shape == (32, 48, 3)
    expected = scene.boxes(3).xyxy * [48 / 97, 0.5, 48 / 97, 0.5]
    np.testing.assert_allclose(sequence.boxes(3).xyxy, expected, rtol=1e-6)
    assert list(sequence.labelled()) == list(range(12))
    assert sequence.labels(0) is None
    with pytest.raises(UserError, match="height must be at least 1, got 0"):
        BoxedSequence(scene, [], 0)
    with pytest.raises(ValueError, match="size"):
        Boxes.of([[0, 0, 1, 1]], [0]).resized(32)


def test_boxes_that_reach_beyond_are_a_note_and_those_outside_a_problem() -> None:
    scene = synthetic(num_sequences=1, num_frames=2).sequences[0]
    reaching = Boxes.of([[-1, 0, 9, 9]], [0]).clipped((64, 96))
    sequence = BoxedSequence(scene, [reaching, Boxes.of([], [])])
    assert sequence.problems() == []
    assert sequence.notes() == [f"{scene.name}: 1 boxes reach beyond their frame and are clipped to it"]
    outside = BoxedSequence(scene, [reaching, Boxes.of([[96, 0, 99, 9]], [0]).clipped((64, 96))])
    assert outside.problems() == [
        f"{scene.name}: 1 boxes lie outside their frame and are left out; correct or remove them"
    ]
    assert BoxedSequence(scene, [Boxes.of([], [])] * 2).notes() == []


@pytest.mark.parametrize("frames", [(3, 3), (-1, 2), (4, 1)])
def test_empty_ranges(frames) -> None:
    with pytest.raises(UserError, match=r"frames must be \[first, end\)"):
        frame_slice(frames)
