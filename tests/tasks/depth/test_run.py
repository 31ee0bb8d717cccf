"""Depth from recipe to page, and through every verb of the command line, with each kind of student."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.command_line import run, write_recipe
from tests.networks import TinySegmenter
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.image_files import images_in, read_image
from vidistill.data.video.reader import VideoReader
from vidistill.models import MODELS
from vidistill.stream.stream import Stream
from vidistill.students.files import load_student
from vidistill.tasks.depth.maps import SCALE, DepthMapFolder, depth_maps
from vidistill.tasks.depth.synthetic import synthetic_depth

METHODS = {
    "layerwise": {"name": "delta", "key_frame_interval": 3, "leave_first": 0},
    "coarse": {
        "name": "delta", "granularity": "network", "student": {"kind": "copy", "scale": 0.5}, "key_frame_interval": 3,
        "train_key_path": False,
    },
    "low_rank": {"name": "low_rank"},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with depth maps, a trained teacher in `teacher`, and a student of each kind by its name."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", TinySegmenter)
        sequence = synthetic_depth(num_sequences=1, num_frames=6, size=(32, 48)).sequences[0]
        with DepthMapFolder(folder / "maps") as files:
            files.begin("room")
            for index in range(6):
                files.add(sequence.image(index), sequence.labels(index))
        source = {"name": "depth_maps", "root": str(folder / "maps")}
        common = {
            "task": {"name": "depth", "max_depth": 50},
            "optim": {"name": "adamw", "learning_rate": 1e-3, "steps": 3, "batch_size": 2, "num_workers": 0},
        }
        teacher = common | {
            "student": {"name": "tiny"},
            "data": {"train": [source], "evaluate": [source], "clip": {"num_frames": 1, "scale": [0.8, 1.25]}},
            "out": str(folder / "teacher"),
        }
        assert run("train", write_recipe(folder / "teacher.yaml", teacher)) == 0
        for name, method in METHODS.items():
            student = common | {
                "teacher": {"checkpoint": str(folder / "teacher" / "student.safetensors")},
                "method": method,
                "data": {"train": [source], "evaluate": [source], "clip": {"max_gap": 2}},
                "out": str(folder / name),
            }
            student["data"]["labels"] = "none" if name == "coarse" else "given"
            assert run("train", write_recipe(folder / f"{name}.yaml", student)) == 0
        yield folder


@pytest.fixture(params=METHODS)
def student(place: Path, request) -> Path:
    return place / request.param


def test_a_run_leaves_numbers_and_a_page(student: Path) -> None:
    results = json.loads((student / "results.json").read_text())
    for network in ("teacher", "student"):
        metrics = results[network]["metrics"]
        assert 0 < metrics["abs_rel"] < 20
        assert metrics["num_scored"] == 6
        assert "6 labelled of 6 frames" in metrics["protocol"]
    assert results["teacher"]["metrics"]["agreement"] == 1
    assert ("hold" in results["baselines"]) is (student.name != "low_rank")
    page = (student / "report.html").read_text()
    for part in ("AbsRel", "δ &lt; 1.25", "error to the teacher", "25% of the teacher", "50 m", "Side by side"):
        assert part in page
    with VideoReader(student / "side_by_side.mp4") as video:
        frame = next(iter(video))
    assert frame.image.shape == (64, 96, 3)


def test_a_teacher_alone_is_shown_beside_the_truth(place: Path) -> None:
    assert "error to the truth" in (place / "teacher" / "report.html").read_text()


def test_evaluate_counts_what_the_run_counted(place: Path, student: Path, capsys) -> None:
    data = f"depth_maps,root={place / 'maps'}"
    assert run("evaluate", str(student), "--data", data, "--teacher", str(place / "teacher"), "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    expected = json.loads((student / "results.json").read_text())["student"]["metrics"]
    for key in ("abs_rel", "delta1", "rmse", "agreement", "temporal_difference"):
        assert metrics[key] == pytest.approx(expected[key], abs=1e-6)


def test_stream_writes_depth_maps_videos_and_lines(place: Path, student: Path, tmp_path: Path) -> None:
    frames = place / "maps" / "0000_room" / "frames"
    for out in ("maps", "x.mp4", "x.jsonl"):
        assert run("stream", str(student), str(frames), "--out", str(tmp_path / out)) == 0
    images = [read_image(path) for path in images_in(frames)]
    predictions = [output.prediction for output in Stream(load_student(student))(images)]
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for index, prediction in enumerate(predictions):
        stored = np.asarray(Image.open(tmp_path / "maps" / f"{index:08d}.png"))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / SCALE, prediction, atol=0.6 / SCALE)
        assert lines[index]["metres"]["median"] == pytest.approx(float(np.median(prediction)), abs=1e-3)
    with VideoReader(tmp_path / "x.mp4") as video:
        assert video.num_frames == 6


def test_a_teacher_labels_frames_for_a_recipe(place: Path, tmp_path: Path) -> None:
    frames = place / "maps" / "0000_room" / "frames"
    label = ("label", str(frames), "--teacher", str(place / "teacher"), "--out", str(tmp_path / "labels"))
    assert run(*label) == 0
    dataset = depth_maps(tmp_path / "labels")
    [sequence] = dataset.sequences
    assert dataset.problems() == []
    outputs = list(Stream(load_student(place / "teacher"))(sequence.images()))
    for index, output in enumerate(outputs):
        np.testing.assert_allclose(sequence.labels(index), output.prediction, atol=0.6 / SCALE)
    assert run("check", f"depth_maps,root={tmp_path / 'labels'}") == 0


def test_depth_has_no_classes_to_choose(place: Path, tmp_path: Path, capsys) -> None:
    frames = place / "maps" / "0000_room" / "frames"
    label = ("label", str(frames), "--teacher", str(place / "teacher"), "--out", str(tmp_path / "labels"))
    assert run(*label, "--classes", "0") == 1
    assert "--classes: the teacher does not know '0'" in capsys.readouterr().err


def test_an_exported_student_gives_the_same_depth(place: Path, student: Path, tmp_path: Path, capsys) -> None:
    assert run("export", str(student), "--out", str(tmp_path / "exported"), "--size", "48x32") == 0
    assert "outputs equal torch's" in capsys.readouterr().out
    frames = place / "maps" / "0000_room" / "frames"
    for name, path in (("torch", student), ("onnx", tmp_path / "exported")):
        assert run("stream", str(path), str(frames), "--out", str(tmp_path / name)) == 0
    for torch_map, onnx_map in zip(images_in(tmp_path / "torch"), images_in(tmp_path / "onnx"), strict=True):
        ours, theirs = (np.asarray(Image.open(path)).astype(int) for path in (torch_map, onnx_map))
        assert np.abs(ours - theirs).max() <= 1


def test_profile_and_check(place: Path, student: Path, capsys) -> None:
    assert run("profile", str(student), "--size", "48x32", "--json") == 0
    profile = json.loads(capsys.readouterr().out)
    assert profile["student"]["gmacs"]["amortised"] > 0
    assert run("check", str(place / f"{student.name}.yaml")) == 0
    assert run("check", str(place / f"{student.name}.yaml"), "--alone") == 0


def test_class_ids_are_no_depth(place: Path, tmp_path: Path, capsys) -> None:
    values = yaml.safe_load((place / "teacher.yaml").read_text()) | {"out": str(tmp_path / "run")}
    source = {"name": "synthetic", "num_sequences": 1, "num_frames": 3, "size": [32, 48]}
    for part in ("train", "evaluate"):
        wrong = values | {"data": values["data"] | {part: [source]}}
        assert run("train", write_recipe(tmp_path / "recipe.yaml", wrong)) == 1
        assert "has class ids as labels, expected metres" in capsys.readouterr().err
    assert synthetic(num_sequences=1).sequences[0].labels(0).dtype == np.uint8


def test_a_broken_map_is_named_before_training(place: Path, tmp_path: Path, capsys) -> None:
    label = tmp_path / "maps" / "a" / "labels" / "0.png"
    for part in ("frames", "labels"):
        (tmp_path / "maps" / "a" / part).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "maps" / "a" / part / "0.png")
    assert run("check", f"depth_maps,root={tmp_path / 'maps'}") == 1
    assert f"{label}: a depth map must be a PNG with one channel of 16 bits, got 3 channels" in capsys.readouterr().out
    values = yaml.safe_load((place / "teacher.yaml").read_text()) | {"out": str(tmp_path / "run")}
    values["data"]["train"] = [{"name": "depth_maps", "root": str(tmp_path / "maps")}]
    assert run("train", write_recipe(tmp_path / "recipe.yaml", values)) == 1
    assert f"{label}: a depth map must" in capsys.readouterr().err
