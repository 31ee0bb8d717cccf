import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidistill.data.datasets.synthetic import SHAPES, Shape, SyntheticSequence, Texture, Trajectory, synthetic
from vidistill.errors import UserError

QUARTER_TURN = (np.pi / 2, np.pi / 2)  # a swing of whole pixels at this rate moves by whole pixels
SEEDS = st.integers(0, 10**6)


def scene(*shapes: Shape, swing: tuple[float, float] = (0.0, 0.0)) -> SyntheticSequence:
    ground = Texture.draw((40, 110), np.random.default_rng(9))
    return SyntheticSequence("scene", 5, (48, 64), ground, shapes, Trajectory((0.0, 0.0), swing, QUARTER_TURN))


def shape(kind: str, centre: tuple[float, float], half_size: tuple[float, float], swing: tuple[float, float]) -> Shape:
    texture = Texture.draw((110, 215), np.random.default_rng(len(kind)))
    return Shape(kind, half_size, Trajectory(centre, swing, QUARTER_TURN), texture)


def whole_pixels() -> SyntheticSequence:
    """Shapes of different classes that cover each other and leave the frame, in steps of whole pixels."""
    return scene(
        shape("disc", (20.1, 20.2), (12.0, 12.0), (5.0, 0.0)),
        shape("rectangle", (34.1, 24.2), (9.0, 7.0), (-6.0, 2.0)),
        shape("triangle", (60.1, 30.2), (8.0, 9.0), (4.0, -3.0)),
        swing=(2.0, 1.0),
    )


def targets(flow: np.ndarray) -> np.ndarray:
    ys, xs = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]]
    return np.stack([xs, ys], axis=-1) + flow


def test_the_seed_decides_everything() -> None:
    first, again, other = (synthetic(num_sequences=2, seed=seed) for seed in (3, 3, 4))
    assert (first.sequences[1].image(5) == again.sequences[1].image(5)).all()
    assert (first.sequences[1].image(5) != other.sequences[1].image(5)).any()
    assert (first.sequences[1].image(5) != first.sequences[0].image(5)).any()


def test_a_frame_does_not_depend_on_how_many_there_are() -> None:
    many, few = synthetic(num_sequences=5, num_frames=30).sequences, synthetic(num_sequences=1, num_frames=3).sequences
    assert (many[0].image(2) == few[0].image(2)).all()
    assert (list(few[0].images())[2] == few[0].image(2)).all()


def test_size_classes_and_labels() -> None:
    dataset = synthetic(num_sequences=4, num_frames=2, size=(40, 56), num_classes=7)
    assert dataset.class_names == ("ground", *SHAPES)
    assert len(dataset.palette) == 7
    present = set()
    for sequence in dataset.sequences:
        labels = sequence.labels(1)
        assert sequence.image(1).shape == (40, 56, 3)
        assert sequence.image(1).dtype == labels.dtype == np.uint8
        assert list(sequence.labelled()) == [0, 1]
        present |= set(np.unique(labels).tolist())
    assert present == set(range(7))


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("rectangle", [(0.9, 0.9), (-0.9, 0)], [(1.1, 0), (0, -1.1)]),
        ("disc", [(0.7, 0.7), (0, -0.95)], [(0.75, 0.75)]),
        ("triangle", [(0, -0.8), (0.9, 0.9)], [(0.9, 0), (0, 1.1), (0.2, -0.8)]),
        ("cross", [(0.9, 0.3), (-0.3, 0.9), (0, 0)], [(0.5, 0.5), (1.1, 0)]),
        ("diamond", [(0.4, 0.5), (-0.9, 0)], [(0.6, 0.5)]),
        ("ring", [(0.7, 0), (0.6, -0.6)], [(0, 0), (0.75, 0.75)]),
    ],
)
def test_shapes(kind: str, inside: list[tuple[float, float]], outside: list[tuple[float, float]]) -> None:
    drawn = shape(kind, (0.0, 0.0), (10.0, 20.0), (0.0, 0.0))
    assert drawn.covers(np.array(inside) * (10, 20)).all()
    assert not drawn.covers(np.array(outside) * (10, 20)).any()


def test_boxes_worked_by_hand() -> None:
    sequence = scene(
        shape("disc", (40.0, 30.0), (3.0, 3.0), (0.0, 0.0)),  # behind the last
        shape("rectangle", (20.0, 12.0), (5.5, 3.5), (4.0, 0.0)),
        shape("rectangle", (40.0, 30.0), (4.5, 4.5), (0.0, 0.0)),
        shape("rectangle", (1.0, 40.0), (3.5, 1.5), (0.0, 0.0)),  # beyond the left edge
    )
    boxes = sequence.boxes(1)
    assert boxes.xyxy.tolist() == [[19, 9, 30, 16], [36, 26, 45, 35], [0, 39, 5, 42]]
    assert boxes.labels.tolist() == [1, 1, 1]
    assert boxes.instances.tolist() == [2, 3, 4]
    assert boxes.xyxy.dtype == np.float32


@settings(max_examples=15)
@given(SEEDS)
def test_boxes_are_the_extents_of_the_labels(seed: int) -> None:
    sequence = synthetic(num_sequences=1, seed=seed, num_classes=7).sequences[0]
    labels, boxes, classes = sequence.labels(7), sequence.boxes(7).xyxy, sequence.boxes(7).labels
    assert set(classes.tolist()) == set(np.unique(labels).tolist()) - {0}
    assert len(classes) == len(set(classes.tolist()))  # up to six shapes of six kinds
    for (left, top, right, bottom), kind in zip(boxes, classes, strict=True):
        ys, xs = np.where(labels == kind)
        assert (left, top, right, bottom) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@pytest.mark.parametrize("index", range(4))
def test_flow_of_whole_pixels_is_exact(index: int) -> None:
    sequence = whole_pixels()
    flow, visible = sequence.flow(index)
    assert abs(flow - np.rint(flow)).max() < 1e-5
    xs, ys = np.rint(targets(flow)).astype(int).transpose(2, 0, 1)
    inside = (xs >= 0) & (xs < 64) & (ys >= 0) & (ys < 48)
    xs, ys = xs.clip(0, 63), ys.clip(0, 47)
    labels, warped = sequence.labels(index), sequence.labels(index + 1)[ys, xs]
    # every class is one surface here, so a pixel is seen again exactly where its class is found
    assert (visible == inside & (warped == labels)).all()
    change = abs(sequence.image(index + 1)[ys, xs].astype(int) - sequence.image(index))
    assert change[visible].max() <= 1
    assert (~visible[inside]).any()
    assert visible.mean() > 0.7


def test_flow_worked_by_hand() -> None:
    flow, _ = whole_pixels().flow(0)
    # the camera goes from 0 to its swing (2, 1), the shapes to theirs on top
    assert flow[40, 5] == pytest.approx([2, 1])
    assert flow[20, 15] == pytest.approx([2 + 5, 1])
    assert flow[24, 34] == pytest.approx([2 - 6, 1 + 2])
    assert flow[34, 60] == pytest.approx([2 + 4, 1 - 3])


@settings(max_examples=15)
@given(SEEDS)
def test_the_texture_moves_along_the_flow(seed: int) -> None:
    sequence = synthetic(num_sequences=1, seed=seed, num_classes=7).sequences[0]
    flow, visible = sequence.flow(4)
    place = targets(flow).astype(np.float32)
    assert 0 < abs(flow).max() <= 0.02 * 96 * 1.3 + 1e-4
    warped = cv2.remap(sequence.image(5), place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # away from edges, where bilinear sampling would mix two surfaces
    size = np.ones((5, 5), np.uint8)
    plain = [cv2.dilate(labels, size) == cv2.erode(labels, size) for labels in (sequence.labels(4), sequence.labels(5))]
    near = np.rint(place).astype(int).clip(0, (95, 63))
    compared = visible & plain[0] & plain[1][near[..., 1], near[..., 0]]
    compared[[0, -1]] = compared[:, [0, -1]] = False
    change = abs(warped.astype(int) - sequence.image(4))[compared]
    assert compared.mean() > 0.4
    assert change.max() <= 5


def test_a_still_scene_repeats_its_first_frame() -> None:
    still, moving = (synthetic(num_sequences=1, num_frames=4, still=still).sequences[0] for still in (True, False))
    assert all((image == moving.image(0)).all() for image in still.images())
    assert (moving.image(3) != moving.image(0)).any()
    flow, visible = still.flow(2)
    assert (flow == 0).all()
    assert visible.all()


@pytest.mark.parametrize("index", [-1, 3])
def test_frames_that_are_not_there(index: int) -> None:
    sequence = synthetic(num_sequences=1, num_frames=3).sequences[0]
    for read in (sequence.image, sequence.labels, sequence.boxes):
        with pytest.raises(IndexError, match=f"frame {index} is out of range"):
            read(index)


def test_the_last_frame_has_no_flow() -> None:
    sequence = synthetic(num_sequences=1, num_frames=3).sequences[0]
    sequence.flow(1)
    with pytest.raises(IndexError, match="frame 3 is out of range"):
        sequence.flow(2)


@pytest.mark.parametrize(
    "options", [{"num_classes": 8}, {"num_classes": 1}, {"num_frames": 0}, {"size": (64, 8)}, {"seed": -1}]
)
def test_settings_that_make_no_scene(options: dict) -> None:
    with pytest.raises(UserError, match=r"synthetic: .*must be .*got"):
        synthetic(**options)
