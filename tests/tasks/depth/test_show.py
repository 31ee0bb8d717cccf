"""Depth as colours, errors as red, and what a page draws of both."""

from pathlib import Path

import numpy as np
import pytest

from vidistill.tasks import StreamOutput
from vidistill.tasks.depth.score import DepthTruth
from vidistill.tasks.depth.show import (
    LARGEST_ERROR,
    SPAN,
    UNKNOWN,
    DepthLook,
    DepthPictures,
    colour,
    error_picture,
    errors_of,
    read_strip,
)

FRAME = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def output_of(depth: np.ndarray, index: int = 0) -> StreamOutput:
    return StreamOutput(index, None, FRAME, depth.astype(np.float32), index == 0, 1.0)


def test_near_is_bright_and_warm_far_is_dark() -> None:
    colours = colour(np.geomspace(0.1, 100, 50)[None], 50.0)[0].astype(int)
    brightness = colours.sum(axis=1)
    assert (np.diff(brightness) <= 0).all()
    assert (colours[0] == colour(np.array([[50 / SPAN]]), 50.0)[0, 0]).all(), "nearer than the range is as near as it"
    assert (colours[-1] == colour(np.array([[50.0]]), 50.0)[0, 0]).all()
    middle = colour(np.array([[50 / np.sqrt(SPAN)]]), 50.0)[0, 0].astype(int)
    assert middle[0] > middle[2], "red rather than blue"
    assert tuple(colour(np.array([[0.0]]), 50.0)[0, 0]) == UNKNOWN


def test_the_map_is_matplotlib_s() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    near, far = colour(np.array([[1.0, 50.0]]), 50.0)[0] / 255
    inferno = matplotlib.colormaps["inferno"]
    np.testing.assert_allclose(near, inferno(1.0)[:3], atol=0.01)
    np.testing.assert_allclose(far, inferno(0.0)[:3], atol=0.01)


def test_errors_are_relative_and_red() -> None:
    depth, reference = np.array([[2.0, 5.0, 9.0]]), np.array([[2.0, 4.0, 0.0]])
    errors = errors_of(depth, reference)
    assert errors.tolist() == [[0, 0.25, 0]], "unknown is no error"
    grey = np.full((1, 3, 3), 100, np.uint8)
    picture = error_picture(grey, errors)
    assert picture[0, 0].tolist() == [146, 146, 146]
    assert picture[0, 1].tolist() == [0xDC, 0x1E, 0x1E]
    assert error_picture(grey, np.full((1, 3), 10 * LARGEST_ERROR))[0, 0].tolist() == [0xDC, 0x1E, 0x1E]


def test_words_and_numbers_of_a_stream() -> None:
    look = DepthLook(50.0)
    depth = np.linspace(1, 9, 64 * 80).reshape(64, 80)
    assert look.describe(output_of(depth)) == {"metres": {"nearest": 1.0, "median": 5.0, "farthest": 9.0}}
    assert look.image(output_of(depth)).dtype == np.uint16
    assert look.draw(output_of(depth)).shape == FRAME.shape


@pytest.mark.parametrize("names", [("teacher", "student"), ("student",)])
@pytest.mark.parametrize("labelled", ["all", "some", "none"])
def test_panels_have_one_size_and_the_page_its_strip(tmp_path: Path, names, labelled: str) -> None:
    before = FRAME.copy()
    pictures = DepthPictures(50.0, interval=3, length=6)
    for index in range(6):
        known = labelled == "all" or (labelled == "some" and index == 0)
        truth = DepthTruth(FRAME, None, np.full((64, 80), 4, np.float32) if known else None, None)
        outputs = {name: output_of(np.full((64, 80), 5 if name == "student" else 4), index) for name in names}
        assert pictures.panel(truth, outputs).shape == (128, 160, 3)
    assert (before == FRAME).all(), "no caption on the frame itself"
    pictures.save(tmp_path)
    html = read_strip(tmp_path / "strip.npz")
    reference = "teacher" if "teacher" in names else "truth" if labelled == "all" else None
    assert html.count("<tr>") == 4, "a head, and of four chosen frames three that differ"
    assert ("mean error 25.0%" in html) is (reference is not None)
    assert f"error to the {reference}" in html or reference is None
    assert html.count("<li>") == 5 + (reference is not None)
    for metres in ("1 m", "2.7 m", "7.1 m", "19 m", "50 m"):
        assert f"</i>{metres}</li>" in html


def test_unknown_depth_is_in_the_legend(tmp_path: Path) -> None:
    pictures = DepthPictures(50.0, interval=1, length=1)
    pictures.panel(
        DepthTruth(FRAME, None, np.eye(64, 80, dtype=np.float32), None), {"student": output_of(np.ones((64, 80)))}
    )
    pictures.save(tmp_path)
    assert "unknown" in read_strip(tmp_path / "strip.npz")
