import json
from pathlib import Path

import pytest
import yaml

from vidistill.config import plain
from vidistill.errors import UserError
from vidistill.methods.supervised import Supervised
from vidistill.models import build_network
from vidistill.ops.clip_view import ClipView
from vidistill.ops.normalise import Normalisation
from vidistill.report import figures
from vidistill.report.figures import Picture
from vidistill.runs import sweep
from vidistill.runs.recipe import ViewSettings
from vidistill.runs.sweep import parse_view, run_sweep, table
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.students.windows import as_student
from vidistill.tasks.recognition import Recognition, show

NETWORK = {"name": "tsn", "options": {"backbone": "test_resnet"}}
VIDEOS = {"name": "synthetic_actions", "num_videos": 4, "num_frames": 8, "size": 32}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    options = {"num_classes": 4, "backbone": "test_resnet"}
    view, half = ClipView(num_frames=2, crop=32, size=32), Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    network = {"name": "tsn", "library": "vidistill", "options": options}
    card = Card(network=network, task=Recognition(num_classes=4), normalisation=half, view=view)
    save_student(tmp_path / "teacher.safetensors", as_student(build_network("tsn", options=options), card))
    values = {
        "task": {"name": "recognition"},
        "teacher": {"checkpoint": str(tmp_path / "teacher.safetensors")},
        "student": NETWORK,
        "method": {"name": "cross_resolution", "freeze_norms": True},
        "data": {"train": [VIDEOS], "evaluate": [VIDEOS], "clip": {"num_frames": 2, "crop": 32}},
        "optim": {"steps": 1, "batch_size": 2, "num_workers": 0},
        "out": str(tmp_path / "sweep"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "recipe.yaml"


def test_with_and_without_the_teacher_on_equal_terms(recipe: Path) -> None:
    points, page = run_sweep(recipe, ["32:16"], [])
    assert [(point.view, point.series) for point in points] == [
        ("32:16", "with teacher"), ("teacher", "teacher"), ("32:16", "alone"),
    ]  # fmt: skip
    folder = page.parent
    runs = [
        yaml.safe_load((folder / name / "recipe.yaml").read_text()) for name in ("32_16_with_teacher", "32_16_alone")
    ]
    assert [run["normalisation"]["mean"] for run in runs] == [[0.5] * 3] * 2, (
        "alone it sees what it sees with a teacher"
    )
    assert [run["student"]["view"] for run in runs] == [{"num_frames": None, "size": 32, "detail": 16}] * 2
    assert runs[1]["teacher"] is None
    assert runs[1]["method"] == plain(Supervised(freeze_norms=True)) | {"name": "supervised"}, "how it trains stays"
    kept = json.loads((folder / "sweep.json").read_text())
    for point, line in zip(kept, table(points).splitlines()[2:], strict=True):
        assert f"| {point['view']} | {point['series']} | {point['quality']:.4f} |" in line
    taught, _, alone = points
    assert taught.milliseconds == alone.milliseconds, "the same network at the same view, so measured once"
    assert "<svg" not in page.read_text(), "pictures are embedded, not inlined"
    assert page.read_text().count("<figure>") == 2


@pytest.mark.parametrize(
    ("views", "assignments", "sentence"),
    [
        (["32", "x"], [], "--views x: give a size"),
        (["32", "16"], ["student={from: teacher}"], "student: .* give a name, or a teacher to start from"),
        (
            ["32"],
            ["teacher=null", "method={name: supervised}", "data.labels=none"],
            "data.labels: none needs a teacher",
        ),
        (["32"], ["data.evaluate=[]"], "a sweep needs labelled videos to score on"),
    ],
)
def test_mistakes_come_before_any_training(recipe: Path, views, assignments, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run_sweep(recipe, views, assignments)
    assert not (recipe.parent / "sweep").exists()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out matplotlib's part, which takes seconds."""
    for module in (figures, show, sweep):
        monkeypatch.setattr(module, "picture", lambda draw, alt, caption: Picture("data:", "data:", alt, caption))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("labels", ["none", "pseudo"])
def test_without_given_labels_none_learns_alone(recipe: Path, labels: str, capsys) -> None:
    points, _ = run_sweep(recipe, ["32", "16"], [f"data.labels={labels}"])
    assert [(point.view, point.series) for point in points] == [
        ("32", "with teacher"), ("teacher", "teacher"), ("16", "with teacher"),
    ]  # fmt: skip
    assert f"data.labels is {labels}, so a student alone has nothing to learn from" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "x", "112:", "112:x", "-3"])
def test_a_view_is_a_size_or_a_size_and_a_detail(text: str) -> None:
    assert parse_view("224") == ViewSettings(size=224)
    assert parse_view("224:112") == ViewSettings(size=224, detail=112)
    with pytest.raises(UserError, match="give a size in pixels"):
        parse_view(text)


@pytest.mark.parametrize("task", ["segmentation", "super_resolution", "detection"])
def test_only_networks_of_clips_have_several_views(task: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"task: {{name: {task}}}\n")
    with pytest.raises(UserError, match=f"the views of a network of clips, and those of {task} see none"):
        run_sweep(tmp_path / "recipe.yaml", ["32"], [])
