"""The command line on a detector: train, evaluate, stream, export, and every mistake one sentence."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.test_cli import run
from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.coco_video import coco_video, write_coco_video
from vidistill.data.datasets.mot import mot
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.video.reader import VideoReader
from vidistill.models import build_network
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.students.student import PerFrame
from vidistill.tasks.segmentation import Segmentation

OWN_NETWORK = """
from tests.networks import TinyDetector
from vidistill.models import MODELS
MODELS["tiny_detector"] = TinyDetector
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a boxed set, the recipes of a teacher and of its delta student, and their finished runs."""
    folder = tmp_path_factory.mktemp("detection")
    sys.path.insert(0, str(Path(__file__).parent.parent))
    (folder / "nets.py").write_text(OWN_NETWORK)
    dataset = synthetic(num_sequences=2, num_frames=6, size=(48, 64), num_classes=3)
    write_coco_video(dataset, folder / "set" / "annotations.json")
    source = {"name": "coco_video", "root": str(folder / "set")}
    shared = {
        "task": {"name": "detection"},
        "data": {"train": [source], "evaluate": [source | {"frames": [1, 5]}], "clip": {"crop": [48, 64]}},
        "optim": {"steps": 2, "batch_size": 2, "num_workers": 1, "learning_rate": 1e-3},
    }
    teacher = shared | {"student": {"name": "tiny_detector"}, "out": str(folder / "teacher")}
    student = shared | {
        "teacher": {"checkpoint": str(folder / "teacher" / "student.safetensors")},
        "student": {"from": "teacher"},
        "method": {"name": "delta", "student": {"reduction": 2}, "key_frame_interval": 3, "delta_scale": "layer"},
        "losses": {"box": 1.25, "delta": 0.1},
        "out": str(folder / "student"),
    }
    other = synthetic(num_sequences=1, num_frames=2, size=(48, 64), num_classes=3)
    other = VideoDataset("other", other.sequences, ("ground", "disc", "rectangle"))
    write_coco_video(other, folder / "other" / "annotations.json")
    for name, recipe in (("teacher", teacher), ("student", student)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        assert run("--import", str(folder / "nets.py"), "train", str(folder / f"{name}.yaml")) == 0
    return folder


def test_a_run_folder_is_whole(place: Path) -> None:
    names = {path.name for path in (place / "student").iterdir()}
    assert {"student.safetensors", "results.json", "report.html", "side_by_side.mp4", "detections.npz"} <= names
    results = json.loads((place / "student" / "results.json").read_text())
    for who in ("teacher", "student"):
        metrics = results[who]["metrics"]
        assert (metrics["num_frames"], metrics["num_scored"]) == (8, 8)
        assert metrics["num_boxes"] > 8
        assert 0 <= metrics["ap50"] <= 1
    assert len(results["student"]["metrics"]["ap50_by_distance"]) == 3
    held = results["baselines"]["hold"]["metrics"]
    assert held["ap50_by_distance"][0] == results["teacher"]["metrics"]["ap50"]
    left = {entry["path"]: entry["reason"] for entry in results["plan"]["left"]}
    assert left["logits"] == left["offsets"] == "left by the network itself"
    page = (place / "student" / "report.html").read_text()
    assert "AP50" in page
    assert "true boxes" in page
    log = (place / "student" / "metrics.jsonl").read_text().splitlines()
    assert {"class", "box", "teacher_class", "teacher_box", "delta"} <= set(json.loads(log[0]))
    with VideoReader(place / "student" / "side_by_side.mp4") as reader:
        assert (reader.num_frames, reader.width, reader.height) == (4, 3 * 64, 48)


def test_evaluate_without_labels_counts_agreement(place: Path, capsys) -> None:
    student, teacher = str(place / "student"), str(place / "teacher")
    folder = place / "set" / "synthetic_0000"
    assert run("evaluate", student, "--data", f"videos,root={folder}", "--teacher", teacher, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ap50"] is None
    assert found["num_scored"] == found["num_boxes"] == 0
    assert found["num_frames"] == 6
    assert 0 <= found["agreement"] <= 1
    assert run("evaluate", teacher, "--data", f"videos,root={folder}", "--teacher", teacher, "--json") == 0
    assert json.loads(capsys.readouterr().out)["agreement"] == 1.0
    assert run("evaluate", teacher, "--data", f"coco_video,root={place / 'set'}") == 0
    assert "ap50" in capsys.readouterr().out


def test_a_teacher_of_another_task_is_refused(place: Path, capsys) -> None:
    spec = {"name": "ddrnet_23_slim", "library": "vidistill", "options": {"num_classes": 4}}
    card = Card(network=spec, task=Segmentation(num_classes=4))
    save_student(place / "segmenter.safetensors", PerFrame(build_network(**spec), card))
    teacher = str(place / "segmenter.safetensors")
    source = f"coco_video,root={place / 'set'}"
    assert run("evaluate", str(place / "student"), "--data", source, "--teacher", teacher) == 1
    assert (
        "--teacher: was trained for segmentation, this task is detection; give a teacher for it"
        in capsys.readouterr().err
    )


def test_streams_into_files_that_recipes_read(place: Path) -> None:
    clip = str(place / "set" / "synthetic_0001")
    for name in ("drawn.mp4", "boxes.jsonl", "labels/annotations.json", "streamed/gt/gt.txt"):
        assert run("stream", str(place / "student"), clip, "--out", str(place / name)) == 0
    with VideoReader(place / "drawn.mp4") as reader:
        assert (reader.num_frames, reader.width, reader.height) == (6, 64, 48)
    said = [json.loads(line)["boxes"] for line in (place / "boxes.jsonl").read_text().splitlines()]
    assert len(said) == 6
    assert all(said)
    (place / "streamed" / "seqinfo.ini").write_text(f"[Sequence]\nimDir={clip}\n")
    names = ("ground", "rectangle", "disc")
    from_mot = mot(place / "streamed", class_names=names, all_classes=names)
    for read in (coco_video(place / "labels"), from_mot):
        [sequence] = read.sequences
        assert (len(sequence), read.class_names) == (6, names)
        assert sequence.image(0).shape == (48, 64, 3)
        for index, boxes in enumerate(said):
            found = sequence.boxes(index)
            assert [names[label] for label in found.labels] == [box["class"] for box in boxes]
            np.testing.assert_allclose(found.xyxy, [box["box"] for box in boxes], atol=0.006)  # two decimals
            assert (found.scores is None) == (read is from_mot)
            if found.scores is not None:
                np.testing.assert_allclose(found.scores, [box["score"] for box in boxes], atol=1e-6)


def test_export_is_checked_in_onnx_runtime(place: Path, capsys) -> None:
    assert run("export", str(place / "student"), "--out", str(place / "onnx"), "--size", "64x48") == 0
    assert {path.name for path in (place / "onnx").iterdir()} == {
        "card.json", "key.onnx", "first_delta.onnx", "delta.onnx",
    }  # fmt: skip
    assert "outputs equal torch's" in capsys.readouterr().out


def test_profile_and_check(place: Path, capsys) -> None:
    assert run("profile", str(place / "student"), "--size", "64x48", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["student"]["gmacs"]["delta"] < found["teacher"]["gmacs"]["key"]
    assert run("check", str(place / "student.yaml")) == 0
    assert "all is well" in capsys.readouterr().out


def test_convert_between_layouts(place: Path, capsys) -> None:
    source = f"coco_video,root={place / 'set'}"
    assert run("convert", source, str(place / "mot"), "--layout", "mot") == 0
    names = ("ground", "rectangle", "disc")
    expected = coco_video(place / "set").sequences[1]
    [_, sequence] = mot(place / "mot", class_names=names, all_classes=names).sequences
    assert (sequence.image(3) == expected.image(3)).all()
    np.testing.assert_allclose(sequence.boxes(3).xyxy, expected.boxes(3).xyxy, atol=1e-5)
    assert sequence.boxes(3).labels.tolist() == expected.boxes(3).labels.tolist()
    assert run("convert", source, str(place / "again")) == 0
    assert {path.name for path in (place / "again").iterdir()} == {"annotations.json"}
    assert (coco_video(place / "again").sequences[1].image(3) == expected.image(3)).all()


def test_control_without_key_frames_leaves_what_the_network_says(place: Path) -> None:
    out = place / "low_rank"
    recipe = str(place / "student.yaml")
    assert run("train", recipe, "method={name: low_rank, reduction: 2}", f"out={out}") == 0
    results = json.loads((out / "results.json").read_text())
    assert results["baselines"] == {}
    assert "left by the network itself" in {entry["reason"] for entry in results["plan"]["left"]}


@pytest.mark.parametrize("labels", ["none", "pseudo"])
def test_training_without_labels(place: Path, labels: str) -> None:
    out = place / f"labels_{labels}"
    videos = f"data.train=[{{name: videos, root: {place / 'set'}}}]"
    options = [videos, f"data.labels={labels}", "data.evaluate=[]", f"out={out}", "optim.steps=1", "task.num_classes=3"]
    assert run("train", str(place / "student.yaml"), *options) == 0
    log = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert log["teacher_class"] >= 0
    assert (log["class"] == 0) == (labels == "none")


MISTAKES = [
    (["train", "{}/student.yaml", "data.clip.crops=[48,64]"], "did you mean crop"),
    (["train", "{}/student.yaml", "data.clip.crop=null", "data.train.1={}"], "does not exist in the recipe"),
    (["train", "{}/student.yaml", "task.num_classes=7"], "task.num_classes is 7"),
    (
        ["train", "{}/student.yaml", "data.evaluate=[{name: coco_video, root: {}/other}]"],
        "other has 'disc' for class 1",
    ),
    (["evaluate", "{}/student", "--data", "coco_video,root={}/other"], "where the student has 'rectangle'"),
    (["train", "{}/student.yaml", "task.iou_threshold=7"], "'iou_threshold': must be at most 1, got 7"),
    (["train", "{}/student.yaml", "method.delta_scale=layers"], "delta_scale"),
    (["train", "{}/student.yaml", "data.train.0.frames=[9,12]"], "no frames to take"),
    (["train", "{}/student.yaml", "student.view.num_frames=2"], "leave it out"),
    (
        ["label", "{}/set/synthetic_0000", "--teacher", "{}/teacher", "--out", "{}/x.json", "--device", "gpu"],
        "--device gpu",
    ),
    (["convert", "coco_video,root={}/set", "{}/set"], "would be overwritten"),
    (["convert", "coco_video,root={}/set", "{}/x", "--layout", "mots"], "did you mean mot"),
    (["convert", "videos,root={}/set", "{}/x"], "has no boxes to write"),
    (["stream", "{}/student", "{}/set/synthetic_0000", "--out", "{}/boxes.csv"], ".json or .txt"),
    (["stream", "{}/student", "{}/set/synthetic_0000", "--out", "{}/masks"], ".json or .txt"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), MISTAKES, ids=lambda value: value[-1][-30:] if isinstance(value, list) else ""
)
def test_every_mistake_is_one_sentence(place: Path, capsys, arguments, sentence: str) -> None:
    assert run(*[argument.replace("{}", str(place)) for argument in arguments]) == 1
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("error: ")
    assert len(shown.strip().splitlines()) == 1
