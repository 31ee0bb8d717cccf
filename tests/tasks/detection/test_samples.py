"""Boxes go where the pixels go."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidistill.data.augment import RandomView, warp_image
from vidistill.data.clip import SampleKey, VideoDataset
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.sequences.boxes import BoxedSequence, Boxes
from vidistill.errors import UserError
from vidistill.ops.boxes import CLASS, boxes_in, is_annotated
from vidistill.tasks.detection.samples import BORDER, BoxedClips, BoxedClipSettings, cut_boxes


def painted(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    image = np.zeros((*size, 3), dtype=np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 255
    return image


@given(st.integers(0, 2**31), st.booleans(), st.floats(0.6, 1.6))
def test_a_painted_box_is_found_where_its_row_says(seed: int, flip: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    size, box = (60, 80), (22, 17, 49, 40)
    view = RandomView((48, 64), (scale, scale), flip)
    matrix = view.draw(size, rng)
    seen = warp_image(painted(box, size), matrix, (48, 64), border=BORDER)[..., 0] > 127 + 64
    found = cut_boxes(Boxes.of([box], [0]), matrix, (48, 64), visible=0.0)
    ys, xs = np.nonzero(seen)
    if len(ys):
        assert len(found) == 1
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert np.abs(found.xyxy[0] - expected).max() <= 1.5
    elif len(found):  # too thin a part to light a pixel
        assert (found.xyxy[0, 2:] - found.xyxy[0, :2]).min() <= 1.5


def test_what_a_crop_leaves_too_little_of_is_left_out() -> None:
    matrix = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])  # the view begins ten pixels to the right
    boxes = Boxes.of([[0, 0, 20, 10], [6, 0, 12, 10], [0, 0, 9, 9], [12, 2, 14, 9]], [0, 1, 2, 3])
    found = cut_boxes(boxes, matrix, (20, 20), visible=0.4)
    assert found.labels.tolist() == [0, 3]
    np.testing.assert_allclose(found.xyxy, [[0, 0, 10, 10], [2, 2, 4, 9]], atol=1e-4)


def clips(dataset=None, **settings):
    dataset = dataset or synthetic(num_sequences=2, num_frames=6, size=(48, 64))
    return BoxedClips([dataset], BoxedClipSettings(**settings))


def test_clips_keep_every_frames_own_boxes() -> None:
    dataset = synthetic(num_sequences=1, num_frames=12, size=(48, 64))
    sequence = dataset.sequences[0]
    drawn = clips(dataset, flip=False, visible=0.0, max_gap=3)
    for sample in range(12):
        _, clip = drawn[SampleKey(0, 0, sample)]
        assert (clip.frames[1] == sequence.image(sample)).all(), "a clip ends at its anchor"
        first = next(i for i in range(12) if (clip.frames[0] == sequence.image(i)).all())
        assert 1 <= abs(sample - first) <= 3
        for index, rows in zip((first, sample), clip.rows, strict=True):
            np.testing.assert_allclose(rows.numpy(), sequence.boxes(index).rows(), atol=1e-4)


def test_key_frames_come_before_and_after() -> None:
    dataset = synthetic(num_sequences=1, num_frames=9, size=(32, 48))
    both, forwards = clips(dataset, flip=False), clips(dataset, flip=False, both_ways=False)
    assert len(both) == 9
    assert len(forwards) == 8, "the first frame has none before it"

    def offset(drawn, key) -> int:
        _, clip = drawn[key]
        first = next(i for i in range(9) if (clip.frames[0] == dataset.sequences[0].image(i)).all())
        return drawn.anchors[key.sample][1] - first

    offsets = {offset(both, SampleKey(0, epoch, 4)) for epoch in range(40)}
    assert {min(offsets), max(offsets)} == {-4, 4}
    assert all(offset(forwards, SampleKey(0, epoch, 4)) > 0 for epoch in range(10))


def test_stills_move_with_their_boxes() -> None:
    image = painted((20, 15, 40, 35), (48, 64))

    class Still:
        name = "still"

        def __len__(self) -> int:
            return 1

        def image(self, index: int) -> np.ndarray:
            return image

        def labelled(self):
            return range(1)

    sequence = BoxedSequence(Still(), [Boxes.of([[20, 15, 40, 35]], [0])])
    motion = {"translation": 0.02, "rotation_degrees": 0.0, "zoom": 0.0, "acceleration": 0.0}
    drawn = clips(VideoDataset("still", [sequence], ("thing",)), flip=False, noise=0, motion=motion, max_gap=9)
    moved = 0
    for epoch in range(8):
        _, clip = drawn[SampleKey(0, epoch, 0)]
        for frame, rows in zip(clip.frames, clip.rows, strict=True):
            ys, xs = np.nonzero(frame[..., 0] > 190)
            assert np.abs(rows[0, :4].numpy() - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1
        moved += int((clip.rows[0][0] - clip.rows[1][0]).abs().max() > 1)
    assert moved > 3


def test_a_batch_fills_up_and_tells_unknown_from_none() -> None:
    labelled = synthetic(num_sequences=1, num_frames=3, size=(48, 64))
    empty = VideoDataset("empty", [BoxedSequence(labelled.sequences[0], [Boxes.of([], [])] * 3)], ("thing",))
    drawn = BoxedClips([labelled, empty], BoxedClipSettings())
    batch = drawn.collate([drawn[SampleKey(0, 0, 0)], drawn[SampleKey(0, 0, 4)]])
    assert batch.student.shape == (2, 2, 3, 48, 64)
    assert batch.labels.shape[:2] == (2, 2)
    assert batch.labels.shape[3] == 6
    assert is_annotated(batch.labels).all()
    assert len(boxes_in(batch.labels[1, 0])) == 0
    assert (batch.labels[1, ..., CLASS] < 0).all()
    unknown = BoxedClips([labelled], BoxedClipSettings(), use_labels=False)
    assert not is_annotated(unknown.collate([unknown[SampleKey(0, 0, 0)]]).labels).any()


def test_crowds_and_unsure_boxes_are_left_out() -> None:
    frames = synthetic(num_sequences=1, num_frames=1, size=(48, 64)).sequences[0]
    boxes = Boxes.of([[1, 1, 9, 9]] * 3, [0, 1, 2], crowd=[True, False, False], scores=[1, 0.2, 0.9])
    drawn = clips(VideoDataset("x", [BoxedSequence(frames, [boxes])], ("a", "b", "c")), num_frames=1, min_score=0.5)
    _, clip = drawn[SampleKey(0, 0, 0)]
    assert clip.rows[0][:, CLASS].tolist() == [2]
    assert clip.rows[0][0, 5] == pytest.approx(0.9)


def test_a_sample_depends_on_its_key_alone() -> None:
    first, second = (clips(crop=(40, 40), scale=(0.5, 1.5), colour=0.2) for _ in range(2))
    pickle.loads(pickle.dumps(first))  # as a worker gets it
    for epoch in range(3):
        (_, one), (_, other) = (drawn[SampleKey(3, epoch, 2)] for drawn in (first, second))
        assert (one.frames == other.frames).all()
        assert all(torch.equal(a, b) for a, b in zip(one.rows, other.rows, strict=True))


def test_sizes_that_differ_are_one_sentence() -> None:
    sizes = [synthetic(num_sequences=1, num_frames=2, size=size) for size in ((48, 64), (32, 48))]
    drawn = BoxedClips(sizes, BoxedClipSettings())
    with pytest.raises(UserError, match="several sizes"):
        drawn.collate([drawn[SampleKey(0, 0, 0)], drawn[SampleKey(0, 0, 2)]])
