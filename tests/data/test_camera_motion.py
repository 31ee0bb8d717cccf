import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidistill.data.augment import CameraMotion

SIZES = st.tuples(st.integers(16, 400), st.integers(16, 400))
TIMES = st.lists(st.floats(0.5, 9), min_size=1, max_size=5).map(lambda steps: np.cumsum([0, *steps]).tolist())
SEEDS = st.integers(0, 2**32)


@given(SIZES, TIMES, SEEDS)
def test_the_last_frame_is_the_still_itself(size: tuple[int, int], times: list[float], seed: int) -> None:
    matrices = CameraMotion().draw(size, times, np.random.default_rng(seed))
    assert len(matrices) == len(times)
    assert (matrices[-1] == np.eye(3)).all()


@given(SIZES, TIMES, SEEDS)
def test_no_point_moves_faster_than_the_speeds_allow(size: tuple[int, int], times: list[float], seed: int) -> None:
    motion = CameraMotion()
    height, width = size
    matrices = motion.draw(size, times, np.random.default_rng(seed))
    corners = np.array([[x, y, 1.0] for x in (0, width) for y in (0, height)]).T
    places = np.stack([(matrix @ corners)[:2] for matrix in matrices])
    moved = np.linalg.norm(np.diff(places, axis=0), axis=1).max(axis=1)
    shift = motion.translation * max(size) * np.hypot(1, 0.5)
    # a point at distance r from the centre turns and zooms at r · |log zoom + i angle|, and r grows with the zoom
    farthest = np.hypot(height, width) * np.exp(motion.zoom * (1 + motion.acceleration) * times[-1])
    turn = farthest * np.hypot(np.deg2rad(motion.rotation_degrees), motion.zoom)
    assert (moved <= (shift + turn) * (1 + motion.acceleration) * np.diff(times) + 1e-9).all()


def test_the_speed_changes_by_the_acceleration_and_no_more() -> None:
    motion = CameraMotion(translation=0.01, rotation_degrees=0, zoom=0, acceleration=0.5)
    times = [0.0, 1.0, 99.0, 100.0]
    speeds = []
    for seed in range(300):
        matrices = motion.draw((100, 100), times, np.random.default_rng(seed))
        speeds.append(abs(np.diff([matrix[0, 2] for matrix in matrices]))[[0, 2]])
    changes = np.array([first / last for first, last in speeds])
    assert 0.49 < changes.min() < 0.55
    assert 1.45 < changes.max() < 1.51
    assert 1.0 < np.max(speeds) <= 1.5


@given(SIZES, SEEDS)
def test_turning_and_zooming_keep_a_point_near_the_centre(size: tuple[int, int], seed: int) -> None:
    height, width = size
    matrix = CameraMotion(translation=0).draw(size, [0, 5], np.random.default_rng(seed))[0]
    x, y = np.linalg.solve(np.eye(2) - matrix[:2, :2], matrix[:2, 2])
    assert 0.35 * width - 1e-6 <= x <= 0.65 * width + 1e-6
    assert 0.35 * height - 1e-6 <= y <= 0.65 * height + 1e-6


def test_one_seed_one_motion() -> None:
    first, second, other = (CameraMotion().draw((48, 64), [0, 3, 6], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (np.array(first) == np.array(second)).all()
    assert not (np.array(first) == np.array(other)).all()


def test_without_speed_nothing_moves() -> None:
    matrices = CameraMotion(0, 0, 0).draw((48, 64), [0, 3, 6], np.random.default_rng(0))
    assert (np.array(matrices) == np.eye(3)).all()
