"""One logit a pixel from masks of 0 and 255 to a page, and through every verb of the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.command_line import run, write_recipe
from tests.networks import TinySegmenter
from vidistill.data.datasets.label_maps import label_maps
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.image_files import images_in, read_image
from vidistill.models import MODELS
from vidistill.stream.stream import Stream
from vidistill.students.files import load_student, save_student

STEPS = {"teacher": 40, "delta": 25}


def write_masks(root: Path, foreground: int, **scenes: int) -> dict[str, str]:
    """Scenes of moving shapes with masks of 0 and `foreground`, as a data source."""
    for scene in synthetic(num_classes=2, size=(32, 48), **scenes).sequences:
        for part in ("frames", "labels"):
            (root / scene.name / part).mkdir(parents=True)
        for index in range(len(scene)):
            Image.fromarray(scene.image(index)).save(root / scene.name / "frames" / f"{index}.png")
            Image.fromarray(foreground * scene.labels(index)).save(root / scene.name / "labels" / f"{index}.png")
    (root / "classes.json").write_text('["background", "person"]')
    return {"name": "label_maps", "root": str(root)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with masks, a trained teacher in `teacher`, and a student that learned from it without labels."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", TinySegmenter)
        patch.setitem(MODELS, "two", lambda num_classes: TinySegmenter(2))
        train = write_masks(folder / "train", 255, num_sequences=4, num_frames=8)
        evaluate = write_masks(folder / "evaluate", 1, num_sequences=1, num_frames=9, seed=1)
        for name, steps in STEPS.items():
            recipe = {
                "task": {"name": "segmentation", "num_classes": 1},
                "data": {"train": [train], "evaluate": [evaluate]},
                "optim": {
                    "name": "adamw", "learning_rate": 2e-2, "steps": steps, "batch_size": 4, "num_workers": 0
                },
                "out": str(folder / name),
            }  # fmt: skip
            if name == "teacher":
                recipe["student"] = {"name": "tiny"}
                recipe["data"]["clip"] = {"num_frames": 1}
            else:
                recipe["teacher"] = {"checkpoint": str(folder / "teacher" / "student.safetensors")}
                recipe["data"] |= {"clip": {"max_gap": 4}, "labels": "none"}
                recipe["method"] = {"name": "delta", "key_frame_interval": 5, "train_key_path": False}
                recipe["optim"]["learning_rate"] = 3e-3
            assert run("train", write_recipe(folder / f"{name}.yaml", recipe)) == 0
        yield folder


def images_of(place: Path) -> list[np.ndarray]:
    return [read_image(path) for path in images_in(place / "evaluate" / "synthetic_0000" / "frames")]


def logits_of_frame(student: Path, image: np.ndarray) -> torch.Tensor:
    """(H, W), enlarged from what the network gives for a key frame."""
    model = load_student(student)
    with torch.no_grad():
        outputs, _ = model(model.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None]))
    return torch.nn.functional.interpolate(outputs, size=image.shape[:2], mode="bilinear")[0, 0]


def test_a_student_beats_the_held_key_frame(place: Path) -> None:
    results = json.loads((place / "delta" / "results.json").read_text())
    teacher, student = results["teacher"]["metrics"], results["student"]["metrics"]
    hold = results["baselines"]["hold"]["metrics"]
    assert teacher["foreground_iou"] > 0.75, "it learned what masks of 0 and 255 show"
    for metric in ("foreground_iou", "foreground_f1", "foreground_agreement", "agreement", "miou"):
        assert hold[metric] < student[metric] < 1
    assert student["foreground_iou_by_distance"][0] == teacher["foreground_iou"]
    assert student["foreground_iou_by_distance"][4] > hold["foreground_iou_by_distance"][4] + 0.05
    page = (place / "delta" / "report.html").read_text()
    for part in ("IoU of the foreground", "F1, foreground", "person", "background", "overlap with the teacher"):
        assert part in page


def test_the_card_says_what_one_logit_is(place: Path) -> None:
    card = load_student(place / "delta").card
    assert (card.task.num_classes, card.network["options"]) == (1, {"num_classes": 1})
    assert card.class_names == ("background", "person")


def test_streams_give_masks_of_0_and_255(place: Path, tmp_path: Path) -> None:
    student, frames = place / "delta", place / "evaluate" / "synthetic_0000" / "frames"
    for out in ("masks", "x.mp4", "x.jsonl"):
        assert run("stream", str(student), str(frames), "--out", str(tmp_path / out)) == 0
    predictions = [output.prediction for output in Stream(load_student(student))(images_of(place))]
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for prediction, line, path in zip(predictions, lines, images_in(tmp_path / "masks"), strict=True):
        assert (np.asarray(Image.open(path)) == 255 * prediction).all()
        assert line["shares"]["person"] == pytest.approx(prediction.mean(), abs=1e-6)
    assert (predictions[0] == (logits_of_frame(student, images_of(place)[0]) > 0).numpy()).mean() > 0.999


def test_a_teachers_labels_are_read_back(place: Path, tmp_path: Path) -> None:
    frames = place / "evaluate" / "synthetic_0000" / "frames"
    label = ("label", str(frames), "--teacher", str(place / "teacher"), "--out")
    assert run(*label, str(tmp_path / "labels"), "--score", "0.9") == 0
    dataset = label_maps(tmp_path / "labels")
    assert dataset.class_names == ("background", "person")
    probability = logits_of_frame(place / "teacher", images_of(place)[2]).sigmoid()
    sure = torch.maximum(probability, 1 - probability) >= 0.9
    expected = torch.where(sure, (probability > 0.5).byte(), 255).numpy()
    assert set(np.unique(expected)) == {0, 1, 255}
    assert (dataset.sequences[0].labels(2) == expected).mean() > 0.999
    assert run(*label, str(tmp_path / "one"), "--score", "0.9", "--classes", "person") == 0
    assert (label_maps(tmp_path / "one").sequences[0].labels(2) == dataset.sequences[0].labels(2)).all()


def test_an_exported_student_gives_the_same_masks(place: Path, tmp_path: Path, capsys) -> None:
    assert run("export", str(place / "delta"), "--out", str(tmp_path / "onnx"), "--size", "48x32") == 0
    assert "outputs equal torch's" in capsys.readouterr().out
    data = f"label_maps,root={place / 'evaluate'}"
    for path in (place / "delta", tmp_path / "onnx"):
        assert run("evaluate", str(path), "--data", data, "--teacher", str(place / "teacher"), "--json") == 0
    decoder, text, found = json.JSONDecoder(), capsys.readouterr().out, []
    while text.strip():
        metrics, end = decoder.raw_decode(text.lstrip())
        text, found = text.lstrip()[end:], [*found, metrics]
    for key in ("foreground_iou", "agreement", "foreground_agreement"):
        assert found[0][key] == pytest.approx(found[1][key], abs=2e-3)
        assert 0.5 < found[1][key] < 1


def test_recipes_that_say_another_number_are_refused(place: Path, tmp_path: Path, capsys) -> None:
    values = yaml.safe_load((place / "delta.yaml").read_text()) | {"out": str(tmp_path / "run")}
    two = values | {"task": {"name": "segmentation", "num_classes": 2}}
    assert run("check", write_recipe(tmp_path / "two.yaml", two)) == 1
    expected = "task.num_classes is 2, but the teacher's checkpoint was trained with 1; give the teacher's number"
    assert expected in capsys.readouterr().err
    several = {"name": "synthetic", "num_sequences": 1, "num_frames": 3, "size": [32, 48], "num_classes": 4}
    values["data"] = values["data"] | {"evaluate": [several]}
    assert run("train", write_recipe(tmp_path / "several.yaml", values)) == 1
    assert "num_classes is 1, but synthetic, which is scored on, has 4 classes" in capsys.readouterr().err
    data = ("--data", "synthetic,num_sequences=1,num_frames=3")
    unnamed = load_student(place / "teacher")
    unnamed.card = replace(unnamed.card, class_names=())
    save_student(tmp_path / "x.safetensors", unnamed)
    assert run("evaluate", str(tmp_path / "x.safetensors"), *data) == 1
    assert "num_classes is 1, but synthetic, which is scored on, has 4 classes" in capsys.readouterr().err
    teacher = yaml.safe_load((place / "teacher.yaml").read_text()) | {"out": str(tmp_path / "run")}
    teacher["student"]["name"] = "two"
    assert run("train", write_recipe(tmp_path / "channels.yaml", teacher)) == 1
    assert "num_classes: 1 must return logits (B, 1, h, w), got (1, 2, 16, 24)" in capsys.readouterr().err
