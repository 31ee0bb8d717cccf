"""Recognition as a person uses it: one tiny run from recipe to page, then every verb on its student."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.data.example_files import write_image
from tests.test_cli import run
from vidistill.data.video.reader import VideoReader
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.methods.cross_resolution import CrossResolution
from vidistill.ops.clip_view import ClipView
from vidistill.ops.macs import count_macs
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.students.files import load_student
from vidistill.tasks.recognition import Recognition
from vidistill.training_log import read_log

ACTIONS = {"name": "synthetic_actions", "num_frames": 8, "size": 40, "num_classes": 3}
NETWORK = {"name": "tsm", "options": {"backbone": "test_resnet"}}
VALUES: dict[str, Any] = {
    "task": {"name": "recognition", "num_clips": 2},
    "teacher": {"name": "tsm", "options": {"backbone": "resnet10t"}},
    "student": {**NETWORK, "view": {"num_frames": 2, "size": 32}},
    "method": {"name": "cross_resolution", "stages": 1},
    "data": {
        "train": [{**ACTIONS, "num_videos": 6}],
        "evaluate": [
            {**ACTIONS, "num_videos": 3, "seed": 1},
            {**ACTIONS, "num_videos": 2, "seed": 2},
            {**ACTIONS, "num_videos": 1},
        ],
        "clip": {"num_frames": 4, "crop": 48, "sampling": "dense", "stride": 2},
    },
    "optim": {"steps": 2, "batch_size": 2, "num_workers": 0, "learning_rate": 0.01},
}


def recipe_of(**changes: Any) -> Recipe:
    return Recipe.model_validate({**VALUES, "teacher": NETWORK, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its finished run, a video, and a list of labelled videos of which one is broken."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    with VideoWriter(folder / "clip.mp4", fps=10) as writer:
        for _ in range(9):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    (folder / "none.mp4").write_bytes(b"no video")
    for i in range(4):
        write_image(folder / "frames" / f"{i}.png", size=(48, 64))
    (folder / "list.txt").write_text("clip.mp4 1\nnone.mp4 0\nframes 4 2\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**VALUES, "out": str(folder / "run")}))
    assert run("train", str(folder / "recipe.yaml")) == 0
    return folder


def test_a_run_folder_is_whole(place: Path) -> None:
    names = {path.name for path in (place / "run").iterdir()}
    assert {
        "recipe.yaml", "metrics.jsonl", "student.safetensors", "results.json", "report.html", "side_by_side.mp4",
        "timeline.npz",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".")], "nothing half-written is left"
    log = read_log(place / "run" / "metrics.jsonl")
    assert [line["step"] for line in log] == [1, 2]
    for line in log:
        assert line["loss"] == pytest.approx(line["task"] + 100 * line["feature"], rel=1e-5)
    page = (place / "run" / "report.html").read_text()
    assert "top-1 accuracy" in page
    assert "mIoU" not in page


def test_results_of_student_and_teacher(place: Path) -> None:
    results = json.loads((place / "run" / "results.json").read_text())
    for who in ("teacher", "student"):
        entry = results[who]
        assert (entry["metrics"]["num_scored"], entry["metrics"]["num_frames"]) == (3, 3)
        assert 0 <= entry["metrics"]["top1"] <= 1
        assert "2 clips of" in entry["metrics"]["protocol"]
        scored = {name: metrics["num_scored"] for name, metrics in entry["more_metrics"].items()}
        assert scored == {"synthetic_actions": 2, "synthetic_actions_2": 1}, "data sets of one name keep their scores"
        assert entry["latency_ms"]["clip"].keys() == {"p50", "p95", "p99"}
    assert results["teacher"]["metrics"]["agreement"] == 1.0
    student = load_student(place / "run" / "student.safetensors")
    macs = count_macs(student.network, torch.randn(1, 2, 3, 32, 32)) / 1e9
    assert results["student"]["gmacs"]["clip"] == pytest.approx(macs)
    assert results["student"]["gmacs"]["frame"] == pytest.approx(macs / 2)
    assert results["student"]["gmacs"]["amortised"] == pytest.approx(macs / 4), "a run every fourth frame of a stream"
    assert results["student"]["size"] == [2, 3, 48, 48], "as they are cut, before they are made smaller"
    assert results["teacher"]["size"] == [4, 3, 48, 48]


def test_the_student_loads_alone_with_its_view(place: Path) -> None:
    student = load_student(place / "run" / "student.safetensors")
    card = student.card
    assert student.view == card.view == ClipView(num_frames=2, sampling="dense", stride=4, crop=48, size=32)
    assert student.normalisation == card.normalisation, "also as the teacher of one that wants another"
    assert card.key_frame_interval == 4, "as often as its window has new frames"
    assert card.class_names == ("1 swings", "2 swings", "3 swings")
    assert card.task == Recognition(num_clips=2, num_classes=3)
    assert {name.split(".")[0] for name in student.state_dict()} == {"network"}


def test_a_finished_run_is_scored_again_without_training(place: Path) -> None:
    lines = (place / "run" / "metrics.jsonl").read_text()
    results = json.loads((place / "run" / "results.json").read_text())
    assert run("train", str(place / "run")) == 0
    assert (place / "run" / "metrics.jsonl").read_text() == lines
    again = json.loads((place / "run" / "results.json").read_text())
    for who in ("teacher", "student"):
        assert again[who]["metrics"] == results[who]["metrics"]


def test_evaluate_names_what_it_leaves_out(place: Path, capsys) -> None:
    assert run("evaluate", str(place / "run"), "--data", f"labelled_videos,root={place}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_scored"], found["num_frames"]) == (2, 3)
    assert ["none.mp4" in sentence for sentence in found["undecodable"]] == [True]
    run_folder = str(place / "run")
    source = f"labelled_videos,root={place}"
    assert run("evaluate", run_folder, "--data", source, "--teacher", run_folder) == 0
    shown = capsys.readouterr().out
    assert "agreement" in shown
    assert "1.0000" in shown
    assert "none.mp4" in shown


def test_stream_labels_a_video_over_time(place: Path, capsys) -> None:
    student, clip = str(place / "run"), str(place / "clip.mp4")
    assert run("stream", student, clip, "--out", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key_frame"] for line in lines] == [True, False, False, False] * 2 + [True]
    assert set(lines[0]["classes"]) == {"1 swings", "2 swings", "3 swings"}
    assert sum(lines[0]["classes"].values()) == pytest.approx(1, abs=1e-4)
    assert lines[0]["classes"] == lines[3]["classes"] != lines[4]["classes"], "held until the next key frame"
    assert run("stream", student, clip, "--out", str(place / "out.mp4"), "--key-frames", "1") == 0
    with VideoReader(place / "out.mp4") as reader:
        assert reader.num_frames == 9
    assert run("stream", student, clip, "--out", str(place / "two.mp4"), "--save-state", str(place / "state")) == 0
    again = ("stream", student, clip, "--out", str(place / "three.mp4"), "--load-state", str(place / "state"))
    assert run(*again, "--key-frames", "3") == 1
    assert "state is of a stream that keeps one frame in 4, this one keeps one in 1" in capsys.readouterr().err
    assert run("stream", student, clip, "--out", str(place / "masks")) == 1
    assert "a student of recognition writes a video" in capsys.readouterr().err


def test_profile_and_check(place: Path, capsys) -> None:
    assert run("profile", str(place / "run"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["student"]["gmacs"]["amortised"] == pytest.approx(found["student"]["gmacs"]["clip"] / 4)
    assert run("profile", str(place / "run")) == 0
    assert "clips of 2 frames, 48x48" in capsys.readouterr().out
    assert run("check", str(place / "recipe.yaml")) == 0
    assert "6 training samples; student per_frame of tsm" in capsys.readouterr().out
    assert run("check", f"labelled_videos,root={place}") == 1
    assert "none.mp4" in capsys.readouterr().out


def test_export(place: Path) -> None:
    assert run("export", str(place / "run"), "--out", str(place / "graphs"), "--size", "48x48") == 0
    assert {path.name for path in (place / "graphs").iterdir()} == {"card.json", "key.onnx", "delta.onnx"}


MISTAKES = [
    (["train", "{}/recipe.yaml", "method.stages=9"], "9 stages cannot be matched: the student has backbone.layer1"),
    (["train", "{}/recipe.yaml", "method.stages=[[backbone.layr4,backbone.layer4]]"], "did you mean backbone.layer4"),
    (
        ["train", "{}/recipe.yaml", "method.stages=[[head,head]]"],
        "the stage 'head' of TemporalShiftNetwork returns no feature map",
    ),
    (
        ["train", "{}/recipe.yaml", "student.view.num_frames=3"],
        "view.num_frames 3 does not divide data.clip.",
    ),
    (["train", "{}/recipe.yaml", "student.view.sise=3"], "did you mean size"),
    (["train", "{}/recipe.yaml", "method={name: delta}"], "method delta is for networks that see single frames"),
    (["train", "{}/recipe.yaml", "teacher=null"], "needs a teacher"),
    (["train", "{}/recipe.yaml", "task.average=mean"], "task"),
    (["train", "{}/recipe.yaml", "data.clip.scale=[1, 0.5]"], "least"),
    (["train", "{}/recipe.yaml", "task.num_classes=5"], "has 3 classes"),
    (
        ["train", "{}/recipe.yaml", "data.train=[{name: labelled_videos, root: {}, num_classes: 3}]"],
        "none.mp4: cannot be opened as a video",
    ),
    (
        ["evaluate", "{}/run", "--data", "synthetic_actions,num_frames=8,num_classes=4"],
        "synthetic_actions has 4 classes and the student 3",
    ),
    (["evaluate", "{}/run", "--data", "labelled_videos,root={}/nowhere"], "the list of videos cannot be read"),
    (["stream", "{}/run", "{}/none.mp4", "--out", "{}/x.mp4"], "none.mp4"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=[case[1][:30] for case in MISTAKES])
def test_every_mistake_is_one_sentence(place: Path, capsys, arguments, sentence: str) -> None:
    filled = [argument.replace("{}", str(place)) for argument in arguments]
    assert run(*filled, *([f"out={place.parent / 'other'}"] if filled[0] == "train" else [])) == 1
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("error: ")
    assert len(shown.strip().splitlines()) == 1


# What a recipe builds


@pytest.mark.parametrize("method", ["supervised", "cross_resolution", "collaborative"])
def test_every_method_is_built_with_its_views(method: str) -> None:
    built = build(recipe_of(method={"name": method}))
    training = built.training
    assert training.student.view == ClipView(2, "dense", 4, 48, 32)
    assert training.teacher.view == built.teacher.view == ClipView(4, "dense", 2, 48, 48)
    assert training.student.card.key_frame_interval == 4, "as often as its window has new frames"
    assert all(parameter.requires_grad for parameter in training.student.network.parameters())
    assert not any(parameter.requires_grad for parameter in training.teacher.network.parameters())
    assert built.task.num_classes == 3


def test_options_of_methods_come_as_their_types() -> None:
    spectrum = {"transform": "dct", "kind": "log", "frequency_weights": [0, 1, 1, 1], "normalised": False}
    built = build(recipe_of(method={"name": "collaborative", "spectrum": spectrum, "stages": 2}))
    assert built.training.method.spectrum.frequency_weights == (0, 1, 1, 1)
    built = build(recipe_of(method={"name": "collaborative", "spectrum": None, "weighting": "fixed"}))
    assert built.training.method.spectrum is None
    stages = [["backbone.layer4", "backbone.layer3"]]
    method = build(recipe_of(method={"name": "cross_resolution", "stages": stages})).training.method
    assert isinstance(method, CrossResolution)
    assert method.stages == [("backbone.layer4", "backbone.layer3")]
    with pytest.raises(UserError, match="knd"):
        build(recipe_of(method={"name": "collaborative", "spectrum": {"knd": "log"}}))


def test_a_teacher_of_an_earlier_run_keeps_its_view(place: Path) -> None:
    saved = {"checkpoint": str(place / "run" / "student.safetensors")}
    built = build(recipe_of(teacher=saved, task={"name": "recognition"}))
    assert built.teacher.view == ClipView(num_frames=2, sampling="dense", stride=4, crop=48, size=32), "as trained"
    other = build(recipe_of(teacher={**saved, "view": {"num_frames": 4, "size": 48}}))
    assert other.teacher.view == ClipView(num_frames=4, sampling="dense", stride=2, crop=48, size=48)


def test_a_teacher_whose_frames_do_not_divide_the_clips(place: Path) -> None:
    saved = {"checkpoint": str(place / "run" / "student.safetensors")}
    clip = {**VALUES["data"]["clip"], "num_frames": 3}
    sentence = r"view.num_frames 2 does not divide data.clip.num_frames 3.*; give data.clip more frames, a multiple of"
    with pytest.raises(UserError, match=sentence):
        build(recipe_of(teacher=saved, student=NETWORK, data={**VALUES["data"], "clip": clip}))


def test_labels_given_pseudo_and_none() -> None:
    for labels, used, confidence in (("given", True, None), ("pseudo", True, 0.9), ("none", False, None)):
        training = build(recipe_of(data={**VALUES["data"], "labels": labels})).training
        assert training.clips.use_labels is used
        assert training.task.confidence == confidence
