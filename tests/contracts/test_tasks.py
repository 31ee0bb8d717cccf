"""What every task promises, over the whole registry."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch.utils._pytree import tree_leaves, tree_map

from tests.contracts.examples import KINDS, Kind
from vidistill.config import call, pick
from vidistill.data.clip import SampleKey
from vidistill.errors import UserError
from vidistill.report.page import RunFolder
from vidistill.runs.results import baselines_of
from vidistill.stream.evaluate import evaluate
from vidistill.stream.stream import Stream
from vidistill.students.student import Student
from vidistill.students.windows import as_student
from vidistill.tasks import DATASETS, METRICS, TASKS, Naming, StreamOutput, Task, task_of

SETTINGS = {  # every setting of every task with another value than its default
    "segmentation": {
        "num_classes": 1, "confidence": 0.7, "class_weights": (1.0, 2.0), "unsure_below": 0.2, "soft": True,
    },
    "recognition": {
        "num_classes": 3, "confidence": 0.7, "multi_label": True, "temperature": 2.0, "num_clips": 2, "num_crops": 3,
        "average": "score",
    },
    "super_resolution": {"scale": 2, "degradation": "blur", "centred": True, "channels": "rgb"},
    "detection": {
        "num_classes": 3, "confidence": 0.7, "box_loss": "giou", "focal_gamma": 2.0, "score_threshold": 0.1,
        "iou_threshold": 0.6, "max_detections": 7,
    },
    "depth": {"max_depth": 10.0, "scale_invariance": 0.5},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def task(kind) -> Task:
    return kind.make_task()


@pytest.fixture
def students(kind, task) -> dict[str, Student]:
    """By name, as a run has them: student, teacher, and the task's own baselines."""
    student = as_student(kind.network(), kind.card()).eval()
    teacher = as_student(kind.teacher_network(), replace(kind.card(), view=kind.teacher_view)).eval()
    return {"student": student, "teacher": teacher} | baselines_of(task, student)


class Played(NamedTuple):
    """A video: what the task knows of each frame, and what each network says of it."""

    truths: list
    outputs: dict[str, list[StreamOutput]]


@pytest.fixture
def played(kind, task, students) -> Played:
    frames = list(task.frames(kind.dataset().sequences[0]))
    streams = {name: Stream(student, task=task) for name, student in students.items()}
    outputs = {name: list(stream(image for image, _ in frames)) for name, stream in streams.items()}
    return Played([truth for _, truth in frames], outputs)


def unchanged_by(action: Callable[[], object], *arrays: np.ndarray) -> object:
    """What the action gives; it leaves the arrays as they are."""
    before = [array.copy() for array in arrays]
    result = action()
    assert all(np.array_equal(array, earlier) for array, earlier in zip(arrays, before, strict=True))
    return result


def trained(outputs):
    """The outputs as a network that trains returns them."""
    return tree_map(lambda leaf: leaf.clone().requires_grad_(), outputs)


# Settings


def test_every_task_is_tried() -> None:
    assert {kind.task for kind in KINDS.values()} == set(TASKS)
    assert all(task.name == name for name, task in TASKS.items())


@pytest.mark.parametrize("name", TASKS)
def test_settings_survive_as_plain_values(name: str) -> None:
    given, default = TASKS[name](**SETTINGS[name]), TASKS[name]()
    assert {field.name for field in fields(given)} == set(SETTINGS[name]), "no setting is left out here"
    assert all(getattr(given, setting) != getattr(default, setting) for setting in SETTINGS[name])
    for task in (given, default):
        assert task_of(task.to_values()) == task
        assert task_of(json.loads(json.dumps(task.to_values()))) == task
        assert task.to_values()["name"] == name
    with pytest.raises(UserError, match="here: unknown key 'colour'"):
        task_of({"name": name, "colour": 1}, where="here")


# Training


def test_equal_outputs_compare_as_zero(task, kind) -> None:
    outputs = kind.outputs()
    for loss in task.compare(outputs, tree_map(torch.clone, outputs)).values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gradient_reaches_the_student_and_never_the_teacher(task, kind) -> None:
    student, teacher = trained(kind.outputs()), trained(kind.outputs())
    sum(task.compare(student, teacher).values()).backward()
    assert sum(leaf.grad.abs().sum() for leaf in tree_leaves(student) if leaf.grad is not None) > 0
    assert all(leaf.grad is None for leaf in tree_leaves(teacher))


def test_nothing_labelled_is_a_zero_with_a_gradient_path(task, kind) -> None:
    student = trained(kind.outputs())
    total = sum(task.supervise(student, kind.no_labels()).values())
    total.backward()
    assert total.item() == 0
    assert any(leaf.grad is not None for leaf in tree_leaves(student))


def test_decoding_gives_a_prediction_an_example(task, kind) -> None:
    assert task.decode(kind.outputs(), size=(23, 29)).shape == kind.prediction_shape((23, 29))


def test_training_clips_can_be_drawn_without_files(task) -> None:
    settings = task.clip_settings()
    dataset = call(*pick(DATASETS, task.stand_in(settings), where="data"), where="data")
    samples = task.samples(settings, [dataset], use_labels=False)
    batch = samples.collate([samples[SampleKey(0, 0, 0)], samples[SampleKey(0, 1, 0)]])
    assert batch.student.dtype == torch.uint8
    assert batch.student.shape[0] == len(batch.labels) == 2
    example = samples.example()
    assert batch.student.shape[-example.ndim + 1 :] == example.shape[1:], "one of what a network sees"
    inputs, labels = task.examples(batch.student, batch.labels)
    assert len(inputs) == len(labels)


# Scoring


def test_frames_have_an_image_and_a_truth_each(task, kind) -> None:
    sequence = kind.dataset().sequences[0]
    frames = list(task.frames(sequence))
    assert len(frames) == len(sequence)
    for image, truth in frames:
        assert image.dtype == np.uint8
        assert image.shape == frames[0][0].shape
        assert image.shape[2] == 3
        assert truth is not None
    number, shown = task.shown([sequence])
    assert [image.shape for image, _ in shown] == [image.shape for image, _ in frames]
    assert number >= len(frames)


def test_every_metric_is_counted_and_says_how(task, kind, students) -> None:
    sequences = kind.dataset().sequences
    for metrics in evaluate(students, sequences, task).values():
        assert {metric.key for metric in task.metrics} <= metrics.keys()
        assert json.loads(json.dumps(metrics)) == metrics
        known = [metric for metric in task.metrics if metrics[metric.key] is not None]
        assert known[0].sentence, "the page's headline"
        assert not known[0].is_agreement, "which the labels give"
        assert 0 < metrics["num_scored"] <= metrics["num_frames"]
        assert metrics["protocol"].endswith(".")
        for metric in task.metrics:
            by_distance = metrics.get(f"{metric.key}_by_distance")
            assert by_distance is None or metrics[metric.key] == pytest.approx(np.mean(by_distance))


def test_a_network_agrees_with_itself(task, kind, students) -> None:
    same = {"student": students["student"], "teacher": students["student"]}
    metrics = evaluate(same, kind.dataset().sequences, task, intervals={"student": 1})
    assert metrics["student"] == metrics["teacher"]
    agreements = [metrics["student"][metric.key] for metric in task.metrics if metric.is_agreement]
    known = [value for value in agreements if value is not None]  # of foreground and background only with one class
    assert known or not agreements
    assert known == pytest.approx([1] * len(known))


def test_nothing_counted_is_unknown_or_an_error(task, kind) -> None:
    scores = task.scores(interval=2, view=kind.view)
    if task.whole_videos:
        with pytest.raises(UserError, match="none of the 0 videos can be scored"):
            scores.metrics()
        return
    metrics = scores.metrics()
    assert {metrics[metric.key] for metric in task.metrics if metric.better} == {None}
    assert metrics["num_scored"] == metrics["num_frames"] == 0
    assert metrics["protocol"]


def test_metrics_are_registered_once_and_can_be_said(task) -> None:
    assert len({metric.key for metric in METRICS}) == len(METRICS)
    assert {metric.key for metric in task.metrics} <= {metric.key for metric in METRICS}
    assert len({metric.key for metric in task.metrics}) == len(task.metrics)
    assert any(metric.name and metric.sentence for metric in task.metrics), "a page has a headline"
    for metric in task.metrics:
        assert metric.sentence.format(student=0.5, teacher=0.6, share="83 %").count("{") == 0


# Showing


@pytest.mark.parametrize("has_names", [True, False])
def test_predictions_are_drawn_and_told(task, kind, played, has_names: bool, tmp_path: Path) -> None:
    look = task.look(kind.card().naming if has_names else Naming())
    for output in played.outputs["student"][:2]:
        arrays = output.image, output.prediction
        drawn = unchanged_by(lambda: look.draw(output), *arrays)  # noqa: B023 - called at once
        assert drawn.dtype == np.uint8
        assert drawn.shape == (output.prediction.shape if task.restores else output.image.shape)
        words = unchanged_by(lambda: look.describe(output), *arrays)  # noqa: B023
        assert json.loads(json.dumps(words)) == words
        assert not words.keys() & {"index", "pts_seconds", "key_frame", "milliseconds"}, "which a line has beside"
        if task.image_files:
            PillowImage.fromarray(look.image(output)).save(tmp_path / "prediction.png")


@pytest.mark.parametrize("has_teacher", [True, False])
def test_pictures_are_read_back_by_the_page(task, kind, played, has_teacher: bool, tmp_path: Path) -> None:
    names = [name for name in played.outputs if has_teacher or name != "teacher"]
    length = len(played.truths)
    pictures = task.pictures(kind.card().naming, interval=kind.interval, length=length)
    shapes = set()
    for index, truth in enumerate(played.truths):
        outputs = {name: played.outputs[name][index] for name in names}
        arrays = [array for output in outputs.values() for array in (output.image, output.prediction)]
        panel = unchanged_by(lambda: pictures.panel(truth, outputs), *arrays)  # noqa: B023
        assert panel.dtype == np.uint8
        shapes.add(panel.shape)
    assert len(shapes) == 1, "a video's frames are of one size"
    pictures.save(tmp_path)
    run = RunFolder(tmp_path)
    body = "".join(section.body for section in task.report_sections(run))
    words = body + "".join(figure.alt + figure.caption for figure in task.report_figures(run))
    assert run.notes == []
    assert "student" in words
    assert ("teacher" in words) == has_teacher
    assert body.count("data:image/") + len(task.report_figures(run)) > 0


def test_a_folder_without_pictures_adds_nothing_to_the_page(task, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not any(section.body for section in task.report_sections(run))
    assert task.report_figures(run) == []
    assert run.notes == []
