from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.networks import TinyClips, TinyDetector, TinySegmenter
from vidistill.data.clip import SampleKey
from vidistill.data.dense_clips import DenseClipSettings
from vidistill.errors import UserError
from vidistill.methods import METHODS
from vidistill.methods.delta import Delta
from vidistill.models import MODELS, build_network
from vidistill.ops.clip_view import WindowView
from vidistill.ops.normalise import Normalisation
from vidistill.runs.build import build
from vidistill.runs.check import check_recipe, without_files
from vidistill.runs.recipe import Recipe, load_recipe, save_recipe
from vidistill.runs.run import execute
from vidistill.runs.train import Learner
from vidistill.students.card import Card
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.files import load_student, save_student
from vidistill.students.student import PerFrame
from vidistill.students.windows import LookAhead
from vidistill.tasks import TASKS, task_of
from vidistill.tasks.contract import ClassTask
from vidistill.tasks.segmentation import Segmentation

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))

# by task: a network that stands for a checkpoint's, and clips small enough for synthetic frames
STAND_INS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "segmentation": ("ddrnet_23_slim", {}, {"crop": (64, 64)}),
    "recognition": ("tsn", {"backbone": "test_resnet"}, {"crop": 64}),
    "super_resolution": ("vespcn", {}, {"patch": 16}),
    "detection": ("tiny_detector", {"width": 32}, {"crop": (32, 48)}),
    "depth": ("ddrnet_23_slim", {}, {"crop": (64, 64)}),
}


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in (("segmenter", TinySegmenter), ("detector", TinyDetector), ("clips", TinyClips)):
        monkeypatch.setitem(MODELS, f"tiny_{name}", network)


def recipe_of(**values: Any) -> Recipe:
    given = {
        "task": {"name": "segmentation", "num_classes": 4},
        "teacher": {"name": "ddrnet_23_slim"},
        "student": {"from": "teacher"},
        "data": {"train": [{"name": "synthetic", "num_frames": 4, "size": [32, 48]}], "labels": "none"},
    }
    return Recipe.model_validate(given | values)


def save_segmenter(path: Path, *, is_frozen: bool = False, **card: Any) -> None:
    """An untrained network with four classes."""
    spec = {"library": "vidistill", "name": "tiny_segmenter", "options": {"num_classes": 4}}
    network = build_network(**spec).requires_grad_(not is_frozen)
    save_student(path, PerFrame(network, Card(network=spec, task=Segmentation(num_classes=4), **card)))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_is_complete_without_its_files(path: Path) -> None:
    recipe = load_recipe(path)
    task = recipe.task.name
    name, options, shrunk = STAND_INS[task]
    if isinstance(recipe.task, ClassTask) and not recipe.task.num_classes:
        recipe.task = replace(recipe.task, num_classes=11)
    for network in (recipe.teacher, recipe.student):
        # our own run's checkpoint, which names its network
        if network is not None and network.name is None and network.checkpoint is not None:
            network.name, network.options, network.checkpoint = name, options, None
        if network is not None and network.name is not None and task == "detection":
            with torch.device("meta"):  # which is all that is quick of a detector
                build_network(network.name, network.library, {"num_classes": 1} | network.options)
            network.name, network.options = name, options
    recipe.data.clip = recipe.data.clip.model_copy(update=shrunk)
    run = build(without_files(recipe))
    assert set(recipe.losses) <= {*run.training.method.default_losses, *run.training.task.default_losses}


@pytest.mark.parametrize("cost", ["macs", "latency"])
def test_a_searched_student_is_saved_as_what_was_chosen(cost: str, tmp_path: Path) -> None:
    search = {"candidates": [{"kind": "copy"}, {"kind": "separable"}, {"kind": "nothing"}], "cost": cost}
    method = {"name": "delta", "convert": ["stage1.*"], "search": search}
    optim = {"name": "adamw", "steps": 1, "batch_size": 1, "num_workers": 0}
    execute(build(recipe_of(method=method, optim=optim, out=tmp_path / "run")))
    student = load_student(tmp_path / "run" / "student.safetensors")
    assert student.plan is not None
    assert [len(entry.candidates) for entry in student.plan.converted] == [1, 1, 1, 1]
    frames = torch.randn(2, 1, 3, 32, 48)
    _, state = student(frames[0])
    assert student(frames[1], state)[0].shape == (1, 4, 4, 6)


@pytest.mark.parametrize("method", ["supervised", "low_rank", "delta"])
@pytest.mark.parametrize("start", ["teacher", "checkpoint"])
def test_what_was_saved_frozen_trains_again(method: str, start: str, tmp_path: Path) -> None:
    save_segmenter(tmp_path / "teacher.safetensors", is_frozen=True)
    saved = {"checkpoint": str(tmp_path / "teacher.safetensors")}
    student = {"from": "teacher"} if start == "teacher" else saved
    run = build(recipe_of(teacher=saved, student=student, method={"name": method}))
    assert all(parameter.requires_grad for parameter in run.training.student.parameters())
    assert not any(parameter.requires_grad for parameter in run.training.teacher.network.parameters())


@pytest.mark.parametrize("labels", ["none", "pseudo"])
def test_without_labels_there_must_be_a_teacher(labels: str, tmp_path: Path) -> None:
    run = build(recipe_of(teacher=None, student={"name": "ddrnet_23_slim"}, out=str(tmp_path)))
    run.recipe.data.labels = labels
    with pytest.raises(UserError, match=f"data.labels: {labels} needs a teacher"):
        execute(run)


def test_checking_a_search_measures_nothing(tmp_path: Path) -> None:
    search = {"candidates": [{"kind": "copy"}, {"kind": "nothing"}], "cost": "latency"}
    method = {"name": "delta", "convert": ["stage1.*"], "search": search}
    path = tmp_path / "recipe.yaml"
    save_recipe(recipe_of(method=method, optim={"name": "adamw"}, out=str(tmp_path / "run")), path)
    assert check_recipe(path, ()) == []
    assert not (tmp_path / "run").exists()


def test_three_ways_with_labels() -> None:
    data = {"train": [{"name": "synthetic", "num_classes": 4, "num_frames": 4, "size": [32, 48]}]}
    tiny = {"teacher": {"name": "tiny_segmenter"}, "method": {"name": "delta"}}
    for labels, used, confidence in (("given", True, None), ("pseudo", True, 0.9), ("none", False, None)):
        training = build(recipe_of(data=data | {"labels": labels}, **tiny)).training
        assert training.clips.use_labels is used
        assert training.task.confidence == confidence
    sure = {"name": "segmentation", "confidence": 0.7}
    for labels, confidence in (("pseudo", 0.7), ("none", None)):
        training = build(recipe_of(task=sure, data=data | {"labels": labels}, **tiny)).training
        assert training.task.confidence == confidence
    with pytest.raises(ValueError, match="labels"):
        recipe_of(data=data | {"labels": "all"})


def test_a_search_keeps_its_table_in_the_run_folder_and_wants_adamw(tmp_path: Path) -> None:
    method = {"name": "delta", "search": {"candidates": [{"kind": "copy"}, {"kind": "nothing"}], "cost": "macs"}}
    adamw = {"name": "adamw"}
    run = build(recipe_of(method=method, optim=adamw, out=str(tmp_path / "run")))
    assert run.training.method.search.table == tmp_path / "run" / "latency_table.json"
    with pytest.raises(UserError, match=r"optim\.name is sgd; give method\.search\.gate_learning_rate"):
        build(recipe_of(method=method))
    method["search"]["gate_learning_rate"] = 0.01
    assert build(recipe_of(method=method)).training.method.search.rate(steps=7) == 0.01


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"student": {"kind": "copi"}}, "'student.kind': unknown student kind 'copi'; did you mean copy?"),
        ({"student": {"scale": 2}}, "'student.scale': must be at most 1, got 2"),
        ({"student": {"gamma": 2}}, "student.gamma"),
        ({"granularity": "block", "convert": ["stage1.*", "stage1"]}, "'stage1.0' lies inside the block 'stage1'"),
        ({"granularity": "block", "convert": ["stage7"]}, "'stage7' matches nothing"),
        ({"convert": ["stem.1*", "stem.0"]}, "'stem.1*' matches nothing"),
        ({"granularity": "stage", "student": {"kind": "separable"}}, "no block of the network can have a student"),
    ],
)
def test_mistakes_in_blocks_and_students(method: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        build(recipe_of(method={"name": "delta", **method}))
    assert sentence in str(caught.value)


def test_a_network_that_does_not_say_what_its_stages_are(tmp_path: Path) -> None:
    network = {"library": "torchvision", "name": "lraspp_mobilenet_v3_large"}
    with pytest.raises(UserError, match=r"LRASPP does not say what its stages are; name .* method\.convert"):
        build(recipe_of(teacher=network, method={"name": "delta", "granularity": "stage"}))


def test_alone_checks_the_names_of_the_data() -> None:
    with pytest.raises(UserError, match="unknown key 'splt'; did you mean split"):
        without_files(recipe_of(data={"train": [{"name": "cityscapes", "root": "nowhere", "splt": "train"}]}))
    alone = without_files(recipe_of(data={"train": [{"name": "cityscapes", "root": "nowhere"}]}))
    assert len(build(alone).training.clips) > 0


def test_alone_a_network_must_have_a_name_or_be_here(tmp_path: Path) -> None:
    recipe = recipe_of(teacher={"checkpoint": str(tmp_path / "teacher.safetensors")})
    with pytest.raises(UserError, match=r"teacher\.checkpoint .*: is not here, .* as in teacher\.name=…"):
        without_files(recipe)
    save_segmenter(tmp_path / "teacher.safetensors")
    assert build(without_files(recipe)).teacher is not None


def test_alone_class_weights_say_how_many_classes_there_are() -> None:
    weights = {"name": "segmentation", "class_weights": [1, 2, 3]}
    task = build(without_files(recipe_of(task=weights, teacher={"name": "tiny_segmenter"}))).task
    assert (task.num_classes, task.class_weights) == (3, (1.0, 2.0, 3.0))


def test_pseudo_labels_fill_unlabelled_frames_alone() -> None:
    task = build(recipe_of(data={"train": [{"name": "synthetic", "num_classes": 4}], "labels": "pseudo"})).training.task
    teacher = torch.zeros(2, 4, 2, 2)
    teacher[:, 1, 0] = 9  # sure of class 1 in the first row, of nothing in the second
    labels = torch.full((2, 2, 2), 255)
    labels[1, 1, 1] = 2
    outputs = torch.zeros(2, 4, 2, 2, requires_grad=True)
    loss = task.supervise(outputs, labels, teacher)["task"]
    (gradient,) = torch.autograd.grad(loss, outputs)
    felt = gradient.abs().sum(dim=1) > 0
    assert felt[0].tolist() == [[True, True], [False, False]]
    assert felt[1].tolist() == [[False, False], [False, True]], "its own label, and nothing of the teacher's"
    assert gradient[0, 1].min() < 0


def test_each_network_gets_its_own_normalisation(tmp_path: Path) -> None:
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    recipe = recipe_of(
        task={"name": "recognition", "num_classes": 4},
        teacher={"name": "tsn", "options": {"backbone": "test_resnet"}, "normalisation": half},
        student={"name": "tsn", "options": {"backbone": "test_resnet"}},
        method={"name": "supervised"},
        data={"train": [{"name": "synthetic_actions", "num_videos": 4}], "clip": {"num_frames": 2, "crop": 32}},
        out=str(tmp_path),
    )
    run = build(recipe)
    seen = {}
    run.training.method.losses = lambda student, teacher, task, batch, *, progress: seen.update(batch=batch) or {}
    clips = run.training.clips
    batch = clips.collate([clips[SampleKey(0, 0, i)] for i in range(2)])
    Learner(run.training)(batch, progress=0.0)
    pixels = batch.student.float() / 255
    torch.testing.assert_close(seen["batch"].teacher, (pixels - 0.5) / 0.5)
    torch.testing.assert_close(seen["batch"].student, Normalisation()(batch.student))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_torchvisions_video_networks_get_frames_as_their_weights_want(role: str, tmp_path: Path) -> None:
    small = {"name": "tsn", "options": {"backbone": "test_resnet"}}
    networks = {"teacher": None, "student": small, role: {"name": "mc3_18", "library": "torchvision"}}
    data = {"train": [{"name": "synthetic_actions", "num_videos": 4}], "clip": {"num_frames": 2, "crop": 32}}
    fixed = {"task": {"name": "recognition", "num_classes": 4}, "method": {"name": "supervised"}, "data": data}
    kinetics = Normalisation((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
    run = build(recipe_of(**networks, **fixed, out=str(tmp_path)))
    assert run.training.normalisation == kinetics
    assert run.training.teacher_normalisation == (kinetics if role == "teacher" else None)
    assert run.training.student.normalisation == run.recipe.normalisation == kinetics
    said = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    run = build(recipe_of(**networks, **fixed, normalisation=said, out=str(tmp_path)))
    assert run.training.normalisation == Normalisation(**said)
    assert run.training.teacher_normalisation == (Normalisation(**said) if role == "teacher" else None)


def test_a_student_sees_frames_as_its_teacher_was_trained(tmp_path: Path) -> None:
    half = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_segmenter(tmp_path / "teacher.safetensors", normalisation=half)
    recipe = recipe_of(
        teacher={"checkpoint": str(tmp_path / "teacher.safetensors")},
        data={"train": [{"name": "synthetic"}], "clip": {"crop": [32, 32]}},
        out=str(tmp_path),
    )
    run = build(recipe)
    assert run.training.normalisation == run.training.student.normalisation == half


def restoring(**values: Any) -> Recipe:
    """A recipe of super-resolution on synthetic frames of 48×32."""
    source = {"name": "synthetic", "num_frames": 4, "size": [32, 48]}
    tiny = {"name": "vsrnet", "options": {"window": 3, "channels": 4, "feature_channels": 4}}
    given = {
        "task": {"name": "super_resolution", "scale": 2},
        "student": tiny,
        "data": {"train": [source], "evaluate": [source], "clip": {"window": 3, "patch": 8}},
    }
    return Recipe.model_validate(given | values)


def test_what_super_resolution_cannot_use_is_said_before_training() -> None:
    build(restoring())
    given = restoring().data.model_dump()
    short = {"name": "synthetic", "num_frames": 2, "size": [32, 48]}
    with pytest.raises(UserError, match="synthetic_0000: has 2 frames, expected at least the window of 3"):
        build(restoring(data=given | {"evaluate": [short]}))
    with pytest.raises(UserError, match="synthetic_0000: a patch of 17 does not fit frames of 24x16"):
        build(restoring(data=given | {"clip": {"window": 3, "patch": 17}}))


@pytest.mark.parametrize(
    ("trained", "sentence"),
    [
        ({"scale": 4}, r"frames with BI ×4: .*, this task has BI ×2"),
        ({"scale": 2, "degradation": "blur"}, r"frames with BD ×2: .*, this task has BI ×2"),
        ({"scale": 2, "channels": "rgb"}, None),
    ],
)
def test_a_teacher_restores_the_same_frames(tmp_path: Path, trained: dict[str, Any], sentence: str | None) -> None:
    options = {"scale": trained["scale"], "window": 3, "channels": 4, "feature_channels": 4}
    spec = {"name": "vsrnet", "library": "vidistill", "options": options}
    card = Card(network=spec, task=task_of({"name": "super_resolution", **trained}), view=WindowView(3))
    save_student(tmp_path / "teacher.safetensors", LookAhead(build_network("vsrnet", options=options), card))
    recipe = restoring(teacher={"checkpoint": str(tmp_path / "teacher.safetensors")}, method={"name": "space_time"})
    if sentence is None:
        assert build(recipe).teacher is not None
        return
    with pytest.raises(UserError, match=sentence):
        build(recipe)


def test_a_teacher_of_another_task_restores_nothing(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "teacher.safetensors")
    with pytest.raises(
        UserError, match=r"teacher\.checkpoint: was trained for segmentation, this task is super_resolution"
    ):
        build(restoring(teacher={"checkpoint": str(tmp_path / "teacher.safetensors")}))


def test_a_cache_is_for_clips_that_come_again() -> None:
    teacher = {"name": "vespcn", "options": {"channels": 4, "feature_channels": 4}, "cache": "nowhere"}
    with pytest.raises(UserError, match=r"clips of super_resolution have no data\.clip\.draws, .*; leave it out"):
        build(restoring(teacher=teacher))


def test_alone_a_patch_of_any_size_has_a_frame(tmp_path: Path) -> None:
    save_recipe(restoring(data={"clip": {"window": 3, "patch": 80}}), tmp_path / "recipe.yaml")
    assert check_recipe(tmp_path / "recipe.yaml", (), alone=True) == []


def test_a_cache_is_for_teachers_that_heed_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heedless(TinyClips):
        """Its first norm takes the statistics of whatever it is given."""

        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            self.first[1] = torch.nn.BatchNorm2d(6, track_running_stats=False)

    monkeypatch.setitem(MODELS, "heedless", Heedless)

    def recipe(teacher: str) -> Recipe:
        videos = {"name": "synthetic_actions", "num_videos": 4, "size": 16}
        return recipe_of(
            task={"name": "recognition"},
            teacher={"name": teacher, "cache": str(tmp_path)},
            student={"name": "tiny_clips"},
            method={"name": "cross_resolution", "teacher_norms": "stored"},
            data={"train": [videos], "clip": {"num_frames": 2, "crop": 16, "draws": 2}},
        )

    assert build(recipe("tiny_clips")).training.teacher is not None
    with pytest.raises(
        UserError, match=r"teacher\.cache: the teacher's batch normalisation has no statistics of its own"
    ):
        build(recipe("heedless"))


def test_where_it_is_measured_is_known_before_training() -> None:
    assert recipe_of(measure={"runtime": "onnx"}).measure.precision == "float32"
    for measure, sentence in (
        ({"runtime": "onx"}, "measure.runtime: unknown name 'onx'; did you mean onnx"),
        (
            {"runtime": "onnx", "precision": "bfloat16"},
            "precision of runtime onnx must be one of float32, got bfloat16",
        ),
        ({"precision": "half"}, "precision of runtime eager must be one of float32, bfloat16, float16, got half"),
    ):
        with pytest.raises(UserError, match=sentence):
            recipe_of(measure=measure)
    search = {"candidates": [{"kind": "copy"}, {"kind": "nothing"}], "runtime": "onnx", "precision": "bfloat16"}
    with pytest.raises(UserError, match="precision of runtime onnx must be one of float32, got bfloat16"):
        build(recipe_of(method={"name": "delta", "search": search}, optim={"name": "adamw"}), measures=False)


def test_a_part_of_a_normalisation_leaves_the_rest_as_it_is() -> None:
    grey = (0.5, 0.5, 0.5)
    restores = {"task": {"name": "super_resolution"}, "data": {}, "normalisation": {"mean": grey}}
    assert recipe_of(**restores).normalisation == Normalisation(grey, (1.0, 1.0, 1.0)), "the task's"
    assert recipe_of(normalisation={"mean": grey}).normalisation == Normalisation(grey)
    assert recipe_of(normalisation={}).normalisation is None
    assert recipe_of(teacher={"normalisation": {"std": grey}}).teacher.normalisation == Normalisation(std=grey)
    with pytest.raises(UserError, match=r"teacher\.normalisation: unknown key 'men'; did you mean mean"):
        recipe_of(teacher={"normalisation": {"men": grey}})
    with pytest.raises(UserError, match=r"^normalisation: 'mean\.1': Field required"):
        recipe_of(normalisation={"mean": [0.5]})


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_holds_typed_settings_and_reads_back_the_same(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert isinstance(recipe.task, TASKS[recipe.task.name])
    assert isinstance(recipe.method, METHODS[recipe.method.name])
    assert isinstance(recipe.data.clip, recipe.task.clip_settings)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    given, saved = (yaml.safe_load(file.read_text()) for file in (path, tmp_path / "recipe.yaml"))
    assert _is_kept(given, saved), "what was written is there, and every default beside it"
    assert saved["method"].keys() == {"name", *(f.name for f in fields(recipe.method) if f.init)}


def _is_kept(given: Any, saved: Any) -> bool:
    """Whether every value of a tree is in the other, which may have more keys."""
    if isinstance(given, dict):
        return all(key in saved and _is_kept(value, saved[key]) for key, value in given.items())
    if isinstance(given, list):
        return len(given) == len(saved) and all(map(_is_kept, given, saved))
    return given == saved


def test_settings_can_be_given_as_what_they_are(tmp_path: Path) -> None:
    method = Delta(student=StudentSpec(reduction=8), leave=("stem.*",), key_frame_interval=5)
    task, clip = Segmentation(num_classes=4, class_weights=(1.0, 2.0, 1.0, 1.0)), DenseClipSettings(crop=(32, 48))
    half = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    recipe = Recipe(task=task, method=method, data={"clip": clip}, normalisation=half)
    assert (recipe.task, recipe.method, recipe.data.clip, recipe.normalisation) == (task, method, clip, half)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("task.name=segmentatoin", "task: unknown name 'segmentatoin'; did you mean segmentation"),
        ("task.clas_weights=[1, 1]", "task: unknown key 'clas_weights'; did you mean class_weights"),
        ("task.num_classes=four", "task: 'num_classes': Input should be a valid integer.*got 'four'"),
        ("task.num_classes=-1", "task: 'num_classes': must be at least 0, got -1"),
        ("task.class_weights=[1, 2]", "task: 2 class_weights for 4 classes; give one each"),
        ("method.name=detla", "method: unknown name 'detla'; did you mean delta"),
        ("method.key_frames=3", "method: unknown key 'key_frames'; did you mean key_frame_interval"),
        ("method.delta_scale=all", "method: 'delta_scale': Input should be 'mean', 'layer' or 'none', got 'all'"),
        ("method.student.reducton=3", r"method: unknown key 'student\.reducton'; did you mean reduction"),
        ("method.student.reduction=0", r"method: 'student\.reduction': must be at least 1, got 0"),
        ("method.search={candidates: [{kin: copy}]}", r"'search\.candidates\.0\.kin'; did you mean kind"),
        ("method.search={candidates: [{kind: copy}]}", r"search\.candidates must hold two different ones or more"),
        ("data.clip.max_gp=3", "data.clip: unknown key 'max_gp'; did you mean max_gap"),
        ("data.clip.max_gap=0", "data.clip: 'max_gap': must be at least 1, got 0"),
        ("data.lables=none", "unknown key 'data.lables'; did you mean labels"),
        ("measure.runtme=onnx", "unknown key 'measure.runtme'; did you mean runtime"),
        ("task=segmentation", r"'task' must be a mapping such as \{key: value\}, got 'segmentation'"),
        ("optim=adamw", r"'optim' must be a mapping such as \{key: value\}, got 'adamw'"),
        ("optim.stepps=3", "unknown key 'optim.stepps'; did you mean steps"),
        ("losses.task=-1", r"'losses\.task': must be at least 0, got -1"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest(assignment: str, sentence: str, tmp_path: Path) -> None:
    save_recipe(recipe_of(method={"name": "delta"}), tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=sentence):
        load_recipe(tmp_path / "recipe.yaml", [assignment])
