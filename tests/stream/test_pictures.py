"""What people look at after a run, against streams of the same frames."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.stream.small import SMALL, K
from tests.tasks.super_resolution.test_score import moving
from vidistill.data.sequences.boxes import Boxes
from vidistill.data.video.reader import VideoReader
from vidistill.ops.draw import palette_of
from vidistill.report.page import RunFolder
from vidistill.runs.results import baselines_of
from vidistill.stream.pictures import write_pictures
from vidistill.stream.stream import Stream
from vidistill.students.student import Student
from vidistill.tasks import TASKS
from vidistill.tasks.contract import strip_indices
from vidistill.tasks.detection.show import draw_detections


def show(folder: Path, name: str, *, teacher: bool = True) -> dict[str, Student]:
    """The pictures of a small student of a task, and who is on them."""
    small = SMALL[name]
    student = small.student()
    students = {"student": student} | baselines_of(small.task, student)
    students |= {"teacher": small.teacher()} if teacher else {}
    write_pictures(folder, students, small.videos(), small.task)
    return students


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def size_of(video: Path) -> tuple[int, int, int]:
    """(frames, width, height)."""
    with VideoReader(video) as reader:
        return reader.num_frames, reader.width, reader.height


def predictions(student: Student, images) -> list[np.ndarray]:
    return [output.prediction for output in Stream(student)(images)]


def test_every_task_is_shown() -> None:
    assert {small.task.name for small in SMALL.values()} == set(TASKS)


@pytest.mark.parametrize("teacher", [True, False], ids=["beside a teacher", "alone"])
def test_segmentation(tmp_path: Path, teacher: bool) -> None:
    students = show(tmp_path, "segmentation", teacher=teacher)
    strip, images = read(tmp_path / "strip.npz"), list(SMALL["segmentation"].videos()[0].images())
    chosen = sorted(strip_indices(len(images), K))
    assert len(chosen) > 2
    assert strip["distances"].tolist() == [index % K for index in chosen]
    assert {index % K for index in chosen} == set(range(K)), "every distance to the key frame"
    assert np.array_equal(strip["frames"], [images[index] for index in chosen])
    assert strip["class_names"].tolist() == list(SMALL["segmentation"].names)
    assert np.array_equal(strip["palette"], palette_of(4)[:4])
    for name, student in students.items():
        expected = predictions(student, images)
        assert np.array_equal(strip[name], [expected[index] for index in chosen])
    assert ("teacher" in strip) == teacher
    assert size_of(tmp_path / "side_by_side.mp4") == (5, 96, 64 if teacher else 32)
    [frames] = students["student"].task.report_sections(RunFolder(tmp_path))
    assert frames.title == "Frames"
    assert frames.body.count("<tr>") == 1 + len(chosen)
    assert ("agreement" in frames.body) == teacher


@pytest.mark.parametrize("teacher", [True, False], ids=["beside a teacher", "alone"])
def test_detection(tmp_path: Path, teacher: bool) -> None:
    students = show(tmp_path, "detection", teacher=teacher)
    [video, _] = SMALL["detection"].videos()
    images = list(video.images())
    found, chosen = read(tmp_path / "detections.npz"), sorted(strip_indices(len(images), K))
    columns = ["truth", "teacher", "student"] if teacher else ["truth", "student"]
    assert found["names"].tolist() == columns
    assert found["distances"].tolist() == [index % K for index in chosen]
    naming = students["student"].card.naming
    said = {name: predictions(student, images) for name, student in students.items()}
    for row, index in zip(found["pictures"], chosen, strict=True):
        for picture, name in zip(row, columns, strict=True):
            boxes = video.boxes(index) if name == "truth" else Boxes.of_rows(said[name][index].astype(np.float32))
            assert np.array_equal(picture, draw_detections(images[index], boxes, naming))
    assert (found["pictures"][:, 0] != found["pictures"][:, -1]).any()
    assert size_of(tmp_path / "side_by_side.mp4") == (5, 48 * len(columns), 32)
    [frames] = students["student"].task.report_sections(RunFolder(tmp_path))
    assert frames.body.count("<tr>") == 1 + len(chosen)
    assert frames.body.count("<img") == len(columns) * len(chosen)


@pytest.mark.parametrize("teacher", [True, False], ids=["beside a teacher", "alone"])
def test_depth(tmp_path: Path, teacher: bool) -> None:
    students = show(tmp_path, "depth", teacher=teacher)
    [video, _] = SMALL["depth"].videos()
    strip, images = read(tmp_path / "strip.npz"), list(video.images())
    chosen = sorted(strip_indices(len(images), K))
    assert strip["distances"].tolist() == [index % K for index in chosen]
    assert np.array_equal(strip["frames"], [images[index] for index in chosen])
    np.testing.assert_allclose(strip["truth"], [video.labels(index) for index in chosen], rtol=1e-3)
    for name, student in students.items():
        expected = predictions(student, images)
        np.testing.assert_allclose(strip[name], [expected[index] for index in chosen], rtol=1e-3)
    assert ("teacher" in strip) == teacher
    assert size_of(tmp_path / "side_by_side.mp4") == (5, 96, 64)
    [frames] = students["student"].task.report_sections(RunFolder(tmp_path))
    assert frames.body.count("<tr>") == 1 + len(chosen)


@pytest.mark.parametrize("teacher", [True, False], ids=["beside a teacher", "alone"])
def test_super_resolution(tmp_path: Path, teacher: bool) -> None:
    students = show(tmp_path, "super_resolution", teacher=teacher)
    task = students["student"].task
    lows, highs = zip(*((low, truth.high) for low, truth in task.frames(moving(7, 0))), strict=True)
    crops = read(tmp_path / "crops.npz")
    assert crops["names"].tolist() == ["bicubic", "student", *(["teacher"] if teacher else []), "truth"]
    assert crops["frames"].tolist() == [0, 3, 6]
    said = {name: predictions(student, lows) for name, student in students.items()} | {"truth": list(highs)}
    assert np.array_equal(crops["before"], said["bicubic"][3])
    assert np.array_equal(crops["after"], said["student"][3])
    for row, index in zip(crops["crops"], crops["frames"], strict=True):
        for crop, name in zip(row, crops["names"], strict=True):
            assert np.array_equal(crop, said[str(name)][index]), "frames smaller than a crop are shown whole"
    assert size_of(tmp_path / "side_by_side.mp4") == (7, 92, 68)
    [section] = task.report_sections(RunFolder(tmp_path))
    assert section.title == "Crops"
    assert 'class="slider"' in section.body


def test_crops_are_where_bicubic_enlargement_errs_most(tmp_path: Path) -> None:
    small, rng = SMALL["super_resolution"], np.random.default_rng(0)
    video = moving(5, 0, (200, 300))
    for image in video.frames:
        image[:] = 90
        image[150:158, 40:48] = rng.integers(0, 256, (8, 8, 3))  # which no enlargement brings back
    student = small.student()
    write_pictures(tmp_path, {"student": student} | baselines_of(small.task, student), [video], small.task)
    crops = read(tmp_path / "crops.npz")
    assert crops["crops"].shape == (3, 3, 128, 128, 3)
    for row in crops["crops"]:
        where = cv2.matchTemplate(video.frames[0], row[-1], cv2.TM_SQDIFF)
        assert np.unravel_index(where.argmin(), where.shape)[0] <= 150
        assert (row[-1] != 90).any(axis=-1).sum() > 60, "the whole patch is inside"


@pytest.mark.parametrize("name", ["recognition", "recognition, frame by frame"])
def test_recognition(tmp_path: Path, name: str) -> None:
    students = show(tmp_path, name)
    timeline = read(tmp_path / "timeline.npz")
    images = [image for video in SMALL[name].videos()[:3] for image in video.images()]
    assert timeline["labels"].tolist() == [0] * 9 + [1] * 9 + [2] * 9, "a video of each class"
    for who, student in students.items():
        np.testing.assert_array_equal(timeline[who], predictions(student, images))
    assert size_of(tmp_path / "side_by_side.mp4") == (27, 2 * 288, 288)
    assert len(students["student"].task.report_figures(RunFolder(tmp_path))) == 2


def test_students_stay_as_they_are_and_the_teacher_may_look_further(tmp_path: Path) -> None:
    small = SMALL["super_resolution"]
    student = small.student()
    far = replace(small, view=type(small.view)(5), network=lambda: type(small.network())(window=5)).teacher()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    students = {"student": student} | baselines_of(small.task, student) | {"teacher": far}
    write_pictures(tmp_path, students, small.videos(), small.task)
    assert all((before[name] == tensor).all() for name, tensor in student.state_dict().items())
    lows = [low for low, _ in small.task.frames(small.videos()[0])]
    crops = read(tmp_path / "crops.npz")
    assert np.array_equal(crops["crops"][-1, 2], predictions(far, lows)[6])
    assert np.array_equal(crops["crops"][-1, 1], predictions(student, lows)[6])
