"""What vidistill wrote before its modules moved still loads: recipes, students and run folders.

`old/` keeps, as text, what that code wrote for a tiny run of each task: the recipe in the run folder, the student's and
the teacher's card, and the names and shapes of the tensors in the student's file and in the checkpoint.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from tests.networks import TinyClips, TinyDetector, TinySegmenter
from tests.test_cli import run
from vidistill.data.datasets.coco_video import write_coco_video
from vidistill.data.datasets.synthetic import synthetic
from vidistill.models import MODELS, build_network
from vidistill.ops.clip_view import WindowView
from vidistill.runs.build import build
from vidistill.runs.recipe import load_recipe
from vidistill.runs.run import execute
from vidistill.runtimes import open_student
from vidistill.stream import Stream
from vidistill.students.card import Card
from vidistill.students.files import load_student
from vidistill.students.windows import LookAhead

OLD = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "old").glob("*.json"))}
KINDS = {
    "detection": ("low_rank", 1, 1),
    "recognition": ("per_frame", None, 4),
    "segmentation": ("delta", 3, 3),
    "super_resolution": ("delta", 1, 3),
}  # by task: the student's form, how many blocks are converted, its key-frame interval


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder and the networks of the old runs."""
    monkeypatch.chdir(tmp_path)
    for name, network in (("segmenter", TinySegmenter), ("detector", TinyDetector), ("clips", TinyClips)):
        monkeypatch.setitem(MODELS, f"tiny_{name}", network)
    boxed = synthetic(num_sequences=2, num_frames=6, size=(48, 64), num_classes=3)
    write_coco_video(boxed, Path("boxes") / "annotations.json")


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def save(path: Path, card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """A student's file as it was written, with weights of the same names and shapes."""
    path.parent.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, path, metadata={"card": json.dumps(card)})


def save_student_of(task: str) -> Path:
    tensors = {name: 0.5 * torch.rand(shape) for name, shape in OLD[task]["tensors"].items()}
    save(Path(task) / "student.safetensors", OLD[task]["card"], tensors)
    return Path(task)


def save_teacher_of(task: str) -> None:
    network = build_network(**OLD[task]["teacher_card"]["network"])
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    save(Path(f"{task}_teacher") / "student.safetensors", OLD[task]["teacher_card"], tensors)


@pytest.mark.parametrize("task", OLD)
def test_an_old_student_loads_with_its_card(task: str) -> None:
    student = load_student(save_student_of(task))
    form, converted, interval = KINDS[task]
    assert (student.card.form, student.task.name) == (form, task)
    assert (len(student.plan.converted) if student.plan else None) == converted
    assert student.card.key_frame_interval == interval
    for name, value in OLD[task]["card"]["task"].items():
        value = tuple(value) if isinstance(value, list) else value
        assert getattr(student.task, name) == value
    assert json.loads(student.card.to_json())["network"] == OLD[task]["card"]["network"]
    assert Card.from_json(student.card.to_json(), where="again") == student.card


@pytest.mark.parametrize("task", OLD)
def test_an_old_student_streams(task: str) -> None:
    student = open_student(save_student_of(task))
    images = list(synthetic(num_sequences=1, num_frames=5, size=(16, 24)).sequences[0].images())
    outputs = list(Stream(student)(images))
    assert len(outputs) == 5
    assert isinstance(student, LookAhead) == (task == "super_resolution")
    if isinstance(student.view, WindowView):
        assert outputs[0].prediction.shape == (32, 48, 3)


@pytest.mark.parametrize("task", OLD)
def test_an_old_recipe_builds_what_its_checkpoint_holds(task: str) -> None:
    save_teacher_of(task)
    Path("recipe.yaml").write_text(yaml.safe_dump(OLD[task]["recipe"]))
    training = build(load_recipe("recipe.yaml")).training
    assert shapes(training.student.state_dict()) == OLD[task]["checkpoint"]["student"]
    assert sorted(training.method.state_dict()) == OLD[task]["checkpoint"]["method"]


@pytest.mark.parametrize("task", OLD)
def test_an_old_run_folder_is_no_other_run(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its recipe, written with fewer defaults, decides the same training: the run is scored again, or trains longer."""
    save_teacher_of(task)
    folder, recipe = Path(task), yaml.safe_dump(OLD[task]["recipe"])
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe)
    execute(build(load_recipe(folder)))
    saved = shapes(safetensors.torch.load_file(folder / "student.safetensors"))
    if task != "segmentation":  # a search may choose otherwise
        assert saved == OLD[task]["tensors"]
    log = (folder / "metrics.jsonl").read_text()
    (folder / "recipe.yaml").write_text(recipe)
    assert run("train", str(folder)) == 0
    assert (folder / "metrics.jsonl").read_text() == log
    (folder / "recipe.yaml").write_text(recipe)
    assert run("train", str(folder), "optim.steps=2") == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    (folder / "recipe.yaml").write_text(recipe)
    assert run("train", str(folder), "losses.task=7") == 1
    assert "holds a run whose losses.task is" in capsys.readouterr().err
