"""Building leaves the recipe as it is: what data and checkpoints decide stands in the run's own copy."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.networks import TinyDetector, TinySegmenter
from vidistill.data.datasets.synthetic import synthetic
from vidistill.errors import UserError
from vidistill.methods import METHODS
from vidistill.models import MODELS
from vidistill.ops.normalise import Normalisation
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.tasks import DATASETS, TASKS

FRAMES = [{"name": "synthetic", "num_sequences": 1, "num_frames": 3, "size": [32, 32]}]
CLIPS = [{"name": "synthetic_actions", "num_videos": 2, "num_frames": 8, "size": 16}]
TSN = {"name": "tsn", "options": {"backbone": "test_resnet"}}
RECIPES = {
    "segmentation": {
        "teacher": {"name": "tiny"}, "student": {"from": "teacher"},
        "method": {"name": "delta", "search": {"until": 0.5}},
        "optim": {"name": "adamw"},
        "data": {"train": FRAMES, "evaluate": FRAMES, "labels": "pseudo"},
    },
    "recognition": {
        "teacher": TSN, "student": TSN | {"view": {"size": 16}},
        "method": {"name": "cross_resolution"},
        "data": {"train": CLIPS, "evaluate": CLIPS, "clip": {"num_frames": 2, "crop": 32}},
    },
    "super_resolution": {
        "task": {"name": "super_resolution", "scale": 2},
        "teacher": {"name": "vespcn", "options": {"channels": 4}},
        "student": {"name": "vespcn", "options": {"channels": 4}},
        "method": {"name": "space_time"},
        "data": {"train": FRAMES, "evaluate": FRAMES, "clip": {"num_frames": 2, "window": 3, "patch": 12}},
    },
    "detection": {
        "task": {"name": "detection", "num_classes": 4},
        "student": {"name": "tiny_boxes"},
        "method": {"name": "low_rank", "leave": ["offsets"]},
        "data": {"train": FRAMES},
    },
    "depth": {
        "student": {"name": "tiny"},
        "data": {"train": [{"name": "synthetic_depth", "num_sequences": 1, "num_frames": 2, "size": [32, 32]}]},
    },
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_is_left_as_it_is(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", TinySegmenter)
    monkeypatch.setitem(MODELS, "tiny_boxes", TinyDetector)
    recipe = Recipe.model_validate({"task": {"name": task}, "out": tmp_path / "run"} | RECIPES[task])
    before, settings = recipe.model_dump(mode="json", by_alias=True), vars(recipe.method).copy()
    run = build(recipe, measures=False)
    assert recipe.model_dump(mode="json", by_alias=True) == before
    assert vars(recipe.method) == settings
    assert recipe.normalisation is None
    assert isinstance(run.recipe.normalisation, Normalisation)
    assert run.recipe.model_dump(mode="json", by_alias=True) | {"normalisation": None} == before
    assert type(run.training.method) is METHODS[recipe.method.name]
    assert run.training.method is not recipe.method
    assert run.task.name == task
    again = build(recipe, measures=False)
    ours, theirs = run.training.student.state_dict(), again.training.student.state_dict()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items()), "and builds the same once more"


@pytest.mark.parametrize(
    ("name", "num_classes", "data", "names"),
    [
        ("segmentation", 1, {"train": [{"name": "people"}]}, ["background", "person"]),
        ("segmentation", 0, {"train": [{"name": "people"}]}, ["background", "person"]),
        ("segmentation", 1, {"train": FRAMES, "labels": "none"}, ["background", "foreground"]),
        ("segmentation", 4, {"train": [{"name": "people"}], "labels": "none"}, ["0", "1", "2", "3"]),
        ("segmentation", 4, {"train": [{"name": "people"}]}, "num_classes is 4, but synthetic has 1 classes"),
        ("recognition", 0, {"train": [{"name": "people"}]}, "num_classes must be at least 2, got 1"),
    ],
)
def test_classes_are_named_by_data_of_the_same_classes(
    name: str, num_classes: int, data: dict, names: list[str] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = synthetic(num_sequences=1, num_frames=2, size=(32, 32), num_classes=2)
    monkeypatch.setitem(DATASETS, "people", lambda: replace(scenes, class_names=("person",), palette=((9, 8, 7),)))
    monkeypatch.setitem(MODELS, "tiny", TinySegmenter)
    task = {"name": name, "num_classes": num_classes}
    recipe = Recipe.model_validate({"task": task, "student": {"name": "tiny"}, "data": data})
    if isinstance(names, str):
        with pytest.raises(UserError, match=names):
            build(recipe)
        return
    student = build(recipe).training.student
    assert student.card.naming.names(len(names)) == names
    if names[1] == "person":
        assert student.card.naming.colours[:2].tolist() == [[0, 0, 0], [9, 8, 7]]
