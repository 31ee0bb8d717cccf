"""Students of every task exported, by --runtime and by --precision, on streams and on the command line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.stream.small import SMALL, Small
from tests.tasks.super_resolution.test_score import moving
from tests.test_cli import run
from vidistill.data.datasets.coco_video import coco_video
from vidistill.data.datasets.label_maps import label_maps
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.models import MODELS
from vidistill.ops.clip_view import ClipView
from vidistill.runtimes import RUNTIMES, open_student
from vidistill.stream import Running, Stream
from vidistill.stream.key_frames import Fixed
from vidistill.students.files import load_student, save_student
from vidistill.students.student import Student
from vidistill.tasks.depth.maps import depth_maps

SIZES = {  # of the frames that a network sees
    "segmentation": (64, 96), "detection": (64, 96), "depth": (64, 96), "super_resolution": (17, 23)
}  # fmt: skip
LABELLING = ("segmentation", "detection", "depth")


@dataclass
class Place:
    """A folder with a student of every task, videos for it, and its export when it is asked for."""

    folder: Path
    exports: set[str] = field(default_factory=set)

    def student(self, name: str) -> Path:
        return self.folder / name.replace(", ", "_").replace(" ", "_") / "student.safetensors"

    def exported(self, name: str) -> Path:
        folder = self.student(name).parent / "exported"
        if name not in self.exports:
            folder.mkdir()
            RUNTIMES["onnx"].export(load_student(self.student(name)), folder, size=SIZES.get(name))
            self.exports.add(name)
        return folder

    def images(self, name: str) -> list[np.ndarray]:
        """Frames of a video as a stream gets them."""
        if name == "super_resolution":
            return [low for low, _ in SMALL[name].task.frames(moving(7, 0))]
        if name.startswith("recognition"):
            return list(synthetic_actions(num_videos=1, num_frames=9, size=20, num_classes=3).sequences[0].images())
        return list(synthetic(num_sequences=1, num_frames=5, num_classes=3).sequences[0].images())

    def video(self, name: str) -> str:
        """A folder of frames."""
        folder = self.student(name).parent / "frames"
        if not folder.exists():
            folder.mkdir()
            for index, image in enumerate(self.images(name)):
                Image.fromarray(image).save(folder / f"{index:03d}.png")
        return str(folder)

    def data(self, name: str) -> str:
        """What the verb evaluate takes, with labels."""
        if name == "super_resolution":
            root = self.folder / "high"
            if not root.exists():
                root.mkdir()
                for number in range(2):
                    with VideoWriter(root / f"{number}.avi", fps=25) as writer:
                        for image in moving(5, number, size=(34, 46)).frames:
                            writer.write(np.ascontiguousarray(image))
            return f"high_resolution,root={root},scale=2"
        if name.startswith("recognition"):
            return "synthetic_actions,num_videos=4,num_frames=9,size=20,num_classes=3"
        if name == "depth":
            return "synthetic_depth,num_sequences=1,num_frames=5"
        return f"synthetic,num_sequences=1,num_frames=5,num_classes={len(SMALL[name].names)}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("runtimes"))
    with pytest.MonkeyPatch.context() as patch:
        for name, small in SMALL.items():
            key = f"small {name}"
            patch.setitem(MODELS, key, small.network)
            place.student(name).parent.mkdir()
            student = small.student()
            student.card = replace(student.card, network={"name": key})
            save_student(place.student(name), student)
        plain = replace(SMALL["segmentation"], delta=False)  # whose export is one graph, and quick
        patch.setitem(MODELS, "plain", plain.network)
        student = plain.student()
        student.card = replace(student.card, network={"name": "plain"})
        (place.folder / "plain").mkdir()
        save_student(place.folder / "plain" / "student.safetensors", student)
        yield place


def printed(capsys, *arguments: object) -> dict | list[dict]:
    """What a verb prints as JSON, or as lines of JSON."""
    capsys.readouterr()
    assert run(*map(str, arguments)) == 0
    text = capsys.readouterr().out
    return [json.loads(line) for line in text.splitlines()] if arguments[0] == "stream" else json.loads(text)


def assert_near(found: object, expected: object, tolerance: float, where: str = "") -> None:
    """The same values, the numbers among them as near as that."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_near(found[name], expected[name], tolerance, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_near(one, other, tolerance, f"{where}.{index}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance), where
    else:
        assert found == expected, where


def outputs_of(student: Student, images: list[np.ndarray], **options) -> tuple[list[np.ndarray], list[bool]]:
    """Predictions, and which frames are key frames."""
    outputs = list(Stream(student, **options)(images))
    return [output.prediction for output in outputs], [output.is_key_frame for output in outputs]


@pytest.mark.parametrize("name", SMALL)
def test_what_was_exported_is_the_student_on_a_stream(place: Place, name: str) -> None:
    """Key frames in the middle of a stream included, and of clips those at a multiple of their stride."""
    student, exported = load_student(place.student(name)), open_student(place.exported(name))
    assert (exported.card, exported.runtime) == (student.card, "onnx")
    images = place.images(name)
    is_clip = isinstance(student.view, ClipView)
    for policy in (None, Fixed(2 * student.card.key_frame_interval)) if is_clip else (None, Fixed(2)):
        expected, keys = outputs_of(student, images, key_frames=policy)
        found, others = outputs_of(exported, images, key_frames=policy)
        assert others == keys
        assert 1 < sum(keys) < len(keys)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            if name in ("segmentation", "super_resolution"):  # but for pixels on the edge between two classes or levels
                assert np.abs(one.astype(int) - other).max() <= 1 or name == "segmentation"
                assert np.mean(one != other) < 0.01
            else:
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    assert any((one != expected[0]).any() for one in expected if one.shape == expected[0].shape)


def test_a_stream_of_an_exported_student_cut_in_two_goes_on_the_same(place: Place) -> None:
    for name in ("super_resolution", "recognition", "recognition, frame by frame"):
        images = place.images(name)
        whole, keys = outputs_of(open_student(place.exported(name)), images)
        first, second = (Stream(open_student(place.exported(name))) for _ in range(2))
        outputs = list(first(images[:4], ends=False))
        second.load_state_dict(first.state_dict())
        outputs += list(second(images[4:]))
        assert [output.is_key_frame for output in outputs] == keys
        assert all(np.array_equal(o.prediction, one) for o, one in zip(outputs, whole, strict=True))


def test_key_frames_that_an_exported_window_of_clips_cannot_have(place: Place) -> None:
    exported = open_student(place.exported("recognition"))
    with pytest.raises(UserError, match="takes a key frame every 2 frames, or a multiple of that, got 3"):
        list(Stream(exported, key_frames=Fixed(3))(place.images("recognition")))
    by_frame = open_student(place.exported("recognition, frame by frame"))
    student = load_student(place.student("recognition, frame by frame"))
    images = place.images("recognition")
    expected, _ = outputs_of(student, images, key_frames=Fixed(3))
    for one, other in zip(outputs_of(by_frame, images, key_frames=Fixed(3))[0], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_verbs_take_an_exported_folder(place: Place, capsys, name: str) -> None:
    student, exported, data = place.student(name), place.exported(name), place.data(name)
    teacher = ("--teacher", exported) if name != "super_resolution" else ()
    expected = printed(capsys, "evaluate", student, "--data", data, *teacher, "--json")
    found = printed(capsys, "evaluate", exported, "--data", data, *teacher, "--json")
    assert_near(found, expected, 0.01)
    lines, others = (
        printed(capsys, "stream", one, place.video(name), "--out", "-") for one in (exported, place.student(name))
    )
    for line in (*lines, *others):
        assert line.pop("milliseconds") > 0
        for box in line.get("boxes", []):
            box["score"], box["box"] = float(box["score"]), [float(edge) for edge in box["box"]]
    assert_near(lines, others, 0.02)
    size = SIZES.get(name, (16, 16))
    profiled = printed(capsys, "profile", exported, "--size", f"{size[1]}x{size[0]}", "--json")
    assert profiled.keys() == {"student"}
    assert "onnx" in profiled["student"]["device"]
    assert profiled["student"]["frames_per_second"] > 0
    assert profiled["student"]["gmacs"] is None


@pytest.mark.parametrize("name", LABELLING)
def test_an_exported_teacher_labels(place: Place, name: str, tmp_path: Path) -> None:
    read = {"segmentation": label_maps, "detection": coco_video, "depth": depth_maps}[name]
    videos = place.video(name)
    labels = []
    for number, teacher in enumerate((place.student(name), place.exported(name))):
        out = tmp_path / str(number)
        assert run("label", videos, "--teacher", str(teacher), "--out", str(out), "--score", "0.4") == 0
        [sequence] = read(out).sequences
        labels.append([sequence.boxes(i) if name == "detection" else sequence.labels(i) for i in range(5)])
    for one, other in zip(*labels, strict=True):
        if name == "segmentation":
            assert np.mean(one != other) < 0.01
        elif name == "depth":
            np.testing.assert_allclose(one, other, atol=2 / 256)  # the files' steps
        else:
            assert len(one) > 0
            np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)


def test_the_runtime_of_every_verb(place: Place, capsys, tmp_path: Path) -> None:
    plain, data, video = place.folder / "plain", place.data("segmentation"), place.video("segmentation")
    onnx = ("--runtime", "onnx", "--threads", "1")
    expected = printed(capsys, "evaluate", plain, "--data", data, "--json")
    assert_near(printed(capsys, "evaluate", plain, "--data", data, *onnx, "--json"), expected, 0.01)
    lines, others = (printed(capsys, "stream", plain, video, "--out", "-", *options) for options in (onnx, ()))
    assert_near([line["shares"] for line in lines], [line["shares"] for line in others], 0.02)
    for name, options in (("a", onnx), ("b", ())):
        assert run("label", video, "--teacher", str(plain), "--out", str(tmp_path / name), *options) == 0
    [one], [other] = (label_maps(tmp_path / name).sequences for name in ("a", "b"))
    assert all(np.mean(one.labels(i) != other.labels(i)) < 0.01 for i in range(5))
    profiled = printed(capsys, "profile", plain, "--size", "96x64", *onnx, "--json")
    assert profiled["student"]["device"].endswith("onnx")
    assert profiled["student"]["gmacs"]["key"] > 0
    assert profiled["student"]["peak_memory_mb"] is None


@pytest.mark.parametrize("name", SMALL)
def test_the_precision_of_every_verb(place: Place, capsys, tmp_path: Path, name: str) -> None:
    student, data, video = place.student(name), place.data(name), place.video(name)
    half = ("--precision", "bfloat16")
    metrics = SMALL[name].task.metrics
    expected = printed(capsys, "evaluate", student, "--data", data, "--json")
    found = printed(capsys, "evaluate", student, "--data", data, *half, "--json")
    assert found.keys() == expected.keys()
    for metric in metrics:
        if expected[metric.key] is None:
            assert found[metric.key] is None
        elif metric.key not in ("top1", "mean_class_accuracy"):  # which one of four videos decides
            assert found[metric.key] == pytest.approx(expected[metric.key], rel=0.2, abs=0.05)
    lines = printed(capsys, "stream", student, video, "--out", "-", *half)
    assert len(lines) == len(place.images(name))
    if name in LABELLING:
        assert run("label", video, "--teacher", str(student), "--out", str(tmp_path / "labels"), *half) == 0
    profiled = printed(capsys, "profile", student, "--size", "24x16", *half, "--json")
    assert {one["precision"] for one in profiled.values()} == {"bfloat16"}


@pytest.mark.parametrize("small", SMALL.values(), ids=list(SMALL))
def test_a_network_gets_frames_of_its_precision(place: Place, small: Small) -> None:
    kinds: set[torch.dtype] = set()
    student = small.student()
    inner = student.network.network if isinstance(student.network, Student) else student.network
    inner.register_forward_pre_hook(lambda _, args: kinds.add(args[0].dtype))
    stepped = getattr(inner, "first", None)
    if isinstance(stepped, torch.nn.Module):  # a network that steps is not called itself
        stepped.register_forward_pre_hook(lambda _, args: kinds.add(args[0].dtype))
    outputs = list(Stream(student, running=Running(precision="bfloat16"))(place.images(small.task.name)))
    assert torch.bfloat16 in kinds
    kinds.clear()
    list(Stream(student)(place.images(small.task.name)))
    assert kinds == {torch.float32}, "the student itself stays as it is"
    assert len(outputs) == len(place.images(small.task.name))


def test_runtimes_and_precisions_that_are_refused(place: Place, capsys) -> None:
    exported, video = str(place.exported("segmentation")), place.video("segmentation")
    for options, sentence in (
        (("--runtime", "eager"), "was exported for runtime onnx in float32, got runtime eager"),
        (("--precision", "bfloat16"), "leave both out, or give the student before its export"),
    ):
        assert run("stream", exported, video, "--out", "-", *options) == 1
        assert sentence in capsys.readouterr().err
    student = str(place.student("segmentation"))
    for options, sentence in (
        (("--runtime", "onnxx"), "did you mean onnx"),
        (("--runtime", "onnx", "--precision", "float16"), "of runtime onnx must be one of float32, got float16"),
    ):
        assert run("stream", student, video, "--out", "-", *options) == 1
        assert sentence in capsys.readouterr().err
    assert run("profile", exported, "--size", "48x32") == 1
    assert "takes frames of 96x64, got 48x32; export it again with --size 48x32" in capsys.readouterr().err
