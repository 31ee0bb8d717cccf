"""What `check` finds before any training: networks, data and recipes that would fail later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.networks import TinySegmenter
from vidistill.errors import UserError
from vidistill.models import MODELS
from vidistill.runs import check
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe, save_recipe
from vidistill.runs.run import execute

SYNTHETIC = {"name": "synthetic", "num_sequences": 1, "num_frames": 4, "size": [32, 48]}


class TwoArguments(TinySegmenter):
    def forward(self, frame: Tensor, other: Tensor) -> Tensor:
        return super().forward(frame)


class Nothing(TinySegmenter):
    def forward(self, frame: Tensor) -> Any:
        super().forward(frame)


class OfFrames(TinySegmenter):
    """Class scores of whole frames."""

    def forward(self, frame: Tensor) -> Tensor:
        return super().forward(frame).mean(dim=(2, 3))


class TooDeep(TinySegmenter):
    def forward(self, frame: Tensor) -> Tensor:
        return super().forward(frame).unfold(3, 400, 1)[..., 0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of every fault; without the export, which has its own tests."""
    monkeypatch.setitem(MODELS, "tiny", TinySegmenter)
    for network in (TwoArguments, Nothing, OfFrames, TooDeep):
        monkeypatch.setitem(MODELS, network.__name__, network)
    monkeypatch.setitem(MODELS, "builder", lambda num_classes: None)
    monkeypatch.setattr(check, "try_export", lambda run, student: "not exported")


def checked(tmp_path: Path, **values: Any) -> list[str]:
    """The problems of a recipe that is written down."""
    given = {
        "task": {"name": "segmentation", "num_classes": 4},
        "student": {"name": "tiny"},
        "data": {"train": [SYNTHETIC], "evaluate": [SYNTHETIC], "clip": {"max_gap": 2, "crop": [24, 32]}},
        "optim": {"steps": 2, "batch_size": 2, "num_workers": 0},
        "out": str(tmp_path / "run"),
    }
    save_recipe(Recipe.model_validate(given | values), tmp_path / "recipe.yaml")
    problems = check.check_recipe(tmp_path / "recipe.yaml", ())
    assert not (tmp_path / "run").exists()
    return problems


def test_what_was_done_is_said(tmp_path: Path, capsys) -> None:
    assert checked(tmp_path, teacher={"name": "tiny"}, student={"from": "teacher"}, method={"name": "delta"}) == []
    shown = capsys.readouterr().out
    assert "teacher: 'tiny' is given no weights" in shown
    assert "synthetic: decoded 4 frames of 1 sequences" in shown
    assert "trained one step on 2 clips: task" in shown
    assert "streamed, decoded and scored the first frames of synthetic_0000" in shown


@pytest.mark.parametrize("method", ["supervised", "delta"])
@pytest.mark.parametrize("network", ["TwoArguments", "Nothing", "TooDeep", "builder"])
def test_networks_that_do_not_fit_are_one_sentence(network: str, method: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        checked(tmp_path, student={"name": network}, method={"name": method})


def test_options_that_contradict_the_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"options\.num_classes of network 'tiny' is 7, the task's is 4"):
        checked(tmp_path, student={"name": "tiny", "options": {"num_classes": 7}})


def test_frames_without_labels_teach_nothing_without_a_teacher(tmp_path: Path) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(np.full((32, 48, 3), 60 * index, np.uint8)).save(tmp_path / "videos" / "a" / f"{index}.png")
    unlabelled = {"name": "videos", "root": str(tmp_path / "videos")}
    with pytest.raises(UserError, match=r"data\.train: has no labels, and the recipe has no teacher"):
        checked(tmp_path, data={"train": [unlabelled]})
    [problem] = checked(tmp_path, data={"train": [SYNTHETIC], "evaluate": [unlabelled], "clip": {"crop": [24, 32]}})
    assert "nothing can be scored" in problem


@pytest.mark.parametrize(("value", "sentence"), [(255, "every pixel of all 3 label maps is 255"), (9, "the value 9")])
def test_masks_whose_values_mean_nothing(value: int, sentence: str, tmp_path: Path) -> None:
    for part, image in (("train", np.zeros((32, 48, 3), np.uint8)), ("trainannot", np.full((32, 48), value, np.uint8))):
        (tmp_path / part).mkdir()
        for index in range(3):
            Image.fromarray(image).save(tmp_path / part / f"a_{index}.png")
    data = {"train": [{"name": "camvid", "root": str(tmp_path), "split": "train"}], "clip": {"crop": [24, 32]}}
    run = build(Recipe.model_validate({"task": {"num_classes": 11}, "student": {"name": "tiny"}, "data": data}))
    task = run.task if value == 255 else type(run.task)(num_classes=4)
    [problem] = task.label_problems(run.train_sets[0].sequences)
    assert sentence in problem


def test_what_comes_after_training_is_tried_before_it(tmp_path: Path) -> None:
    values = {"task": {"num_classes": 4}, "student": {"name": "OfFrames"}, "out": tmp_path / "run"}
    run = build(Recipe.model_validate(values | {"data": {"train": [SYNTHETIC], "evaluate": [SYNTHETIC]}}))
    with pytest.raises(UserError, match="must return logits"):
        execute(run)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lower optim\.batch_size or data\.clip"):
        checked(tmp_path, optim={"batch_size": 2_000_000_000, "num_workers": 0})
