"""What a run is made of, and how it is built. The only module that knows every package's door."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
import yaml
from torch import nn

from vidistill.checkpoint import load_student, load_weights
from vidistill.config import Settings, call, check_options, choose, override, read_yaml, validate
from vidistill.data import DATASETS
from vidistill.data.clip import VideoDataset
from vidistill.distill import METHODS, Method
from vidistill.distill.card import Card
from vidistill.distill.stateful import PerFrame, StatefulNetwork
from vidistill.distill.teacher import FrozenTeacher
from vidistill.distill.teacher_cache import TeacherCache
from vidistill.distill.window import stateful
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.models import build_network
from vidistill.models.backbone_weights import load_backbone
from vidistill.ops.clip_view import ClipView, View
from vidistill.ops.normalise import Normalisation
from vidistill.scoring.frames import Setting
from vidistill.tasks import TASKS, Task
from vidistill.train import OptimSettings, Training

PSEUDO_CONFIDENCE = 0.9  # unless the task says otherwise


class ViewSettings(Settings):
    """What a network of clips sees of each, where that is not all of it; see `ClipView`.

    num_frames: every second, third … of the clip's frames. size: the square is resized to this side inside the model.
    detail: and to this side before that, so that it holds no finer detail.
    """

    num_frames: int | None = pydantic.Field(default=None, ge=1)
    size: int | None = pydantic.Field(default=None, ge=1)
    detail: int | None = pydantic.Field(default=None, ge=1)


class NetworkSettings(Settings):
    """A network by its name in a library, with the weights in `checkpoint` where there are some.

    A checkpoint that a run of ours saved knows its network, so the name may be left out. backbone: published weights
    of the network's backbone alone, as timm, torchvision or a package gives them. view: for networks of clips.
    """

    name: str | None = None
    library: str = "vidistill"
    options: dict[str, Any] = {}
    checkpoint: Path | None = None
    backbone: Path | None = None
    view: ViewSettings = ViewSettings()


class TeacherSettings(NetworkSettings):
    """cache: a folder for what it says of clips, so that a clip that comes again, see `data.clip.draws`, is free.

    normalisation: of its frames; by default as a run of ours trained it, else the run's.
    """

    cache: Path | None = None
    normalisation: dict[str, tuple[float, float, float]] = {}


class StudentSettings(NetworkSettings):
    """The student starts as a copy of the teacher, or is a network of its own."""

    from_: Literal["teacher"] | None = pydantic.Field(default=None, alias="from")


class DataSettings(Settings):
    """Sources are `{name: a key of DATASETS, …its options}`.

    labels: "given", what the data has; "pseudo", and on frames without any the teacher's confident classes; "none",
    the teacher's soft predictions alone.
    clip: how training clips are drawn, the task's `clip_settings`.
    """

    train: list[dict[str, Any]] = []
    evaluate: list[dict[str, Any]] = []
    labels: Literal["given", "pseudo", "none"] = "given"
    clip: dict[str, Any] = {}


class Recipe(Settings):
    """A run, whole. Every number has a default. normalisation: by default what the teacher was trained with."""

    task: dict[str, Any] = {"name": "segmentation"}
    teacher: TeacherSettings | None = None
    student: StudentSettings = StudentSettings()
    method: dict[str, Any] = {"name": "supervised"}
    losses: dict[str, pydantic.NonNegativeFloat] = {}
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    normalisation: dict[str, tuple[float, float, float]] = {}
    tensorboard: bool = False
    seed: int = 0
    out: Path = Path("runs/run")


def load_recipe(path: str | Path, assignments: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML with key=value overrides. Errors: UserError that names the file and the key."""
    return validate(Recipe, override(read_yaml(path), assignments), where=str(path))


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """The recipe with every default spelled out."""
    values = recipe.model_dump(mode="json", by_alias=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))


@dataclass
class Run:
    """A recipe, built: what trains, what it is compared with, and what it is scored on."""

    recipe: Recipe
    training: Training
    teacher: StatefulNetwork | None
    card: Card
    evaluation: list[VideoDataset]
    setting: Setting


def build(recipe: Recipe) -> Run:
    """Builds all that a run needs, with the random start of new weights decided by the seed.

    Errors: UserError that names the recipe's key for anything unknown, missing or that does not fit together.
    """
    torch.manual_seed(recipe.seed)
    train_sets = build_datasets(recipe.data.train, where="data.train")
    evaluation = build_datasets(recipe.data.evaluate, where="data.evaluate")
    labelled = next((d for d in [*train_sets, *evaluation] if d.num_classes), None)
    teacher, teacher_card = _saved_teacher(recipe)
    task_options = _task_options(recipe, labelled, teacher_card)
    pseudo = {"confidence": PSEUDO_CONFIDENCE} if recipe.data.labels == "pseudo" else {}
    task = build_task(pseudo | task_options)
    if teacher is None and recipe.teacher is not None:
        teacher = PerFrame(_weighted(recipe.teacher, task.network_options)).eval()
    clip = validate(task.clip_settings, recipe.data.clip, where="data.clip")
    recipe.data.clip = clip.model_dump(mode="json")
    clips = task.samples(clip, train_sets, use_labels=recipe.data.labels != "none")
    if teacher is not None and recipe.teacher is not None:
        view = clips.view_of(_view_changes(recipe.teacher, teacher.network, teacher_card))
        teacher = stateful(teacher.network, view).eval()
    frozen = None if teacher is None else FrozenTeacher(teacher.network, teacher.view, _cache(recipe))
    network, spec = _student_network(recipe, teacher, teacher_card, task.network_options)
    network.requires_grad_(True)  # what was loaded was frozen
    method = build_method(_with_table(recipe))
    view = clips.view_of(_view_changes(recipe.student, network, None))
    student = method.prepare(network, clips.example(), view=view, teacher=frozen)
    normalisation, teacher_normalisation = _normalisations(recipe, task, teacher_card)
    recipe.normalisation = dict(normalisation.to_dict())
    if teacher is not None:
        teacher.normalisation = teacher_normalisation
    weights = {**task.default_losses, **method.default_losses, **recipe.losses}
    training = Training(
        student, frozen, method, task, clips, weights, recipe.optim, normalisation, recipe.seed, recipe.out,
        recipe.tensorboard, teacher_normalisation,
    )  # fmt: skip
    named = labelled or teacher_card
    card = Card(
        spec, method.form, task_options, student.plan.to_list() if student.plan else [], normalisation,
        named.class_names if named else (), named.palette if named else (), _interval(method, view), view,
    )  # fmt: skip
    setting = Setting(task, task_options.get("num_classes", 0), normalisation)
    return Run(recipe, training, teacher, card, evaluation, setting)


def _cache(recipe: Recipe) -> TeacherCache | None:
    if recipe.teacher is None or recipe.teacher.cache is None:
        return None
    if not recipe.data.clip.get("draws"):
        raise UserError(
            "teacher.cache: no clip would ever come again; say with data.clip.draws how many may be drawn of each video"
        )
    return TeacherCache(recipe.teacher.cache)


def _normalisations(recipe: Recipe, task: Task, teacher: Card | None) -> tuple[Normalisation, Normalisation]:
    """The student's and the teacher's: what the recipe says, else what the teacher was trained with, else the
    task's."""
    known = teacher.normalisation if teacher is not None else task.normalisation
    given = task.normalisation.to_dict() | recipe.normalisation
    own = call(Normalisation, given, where="normalisation") if recipe.normalisation else known
    said = recipe.teacher.normalisation if recipe.teacher is not None else {}
    if said:
        return own, call(Normalisation, dict(said), where="teacher.normalisation")
    return own, known if teacher is not None else own


def _view_changes(settings: NetworkSettings, network: nn.Module, card: Card | None) -> dict[str, Any]:
    """How a network sees less than the whole clip: as the recipe says, else as it was trained, or as it says itself."""
    declared = {"window": network.window} if hasattr(network, "window") else {}
    trained: dict[str, Any] = {}
    if card is not None and isinstance(card.view, ClipView):
        trained = {"size": card.view.size, "detail": card.view.detail}
    return {**declared, **trained, **settings.view.model_dump(exclude_none=True)}


def _interval(method: Method, view: View | None) -> int:
    """The default for a stream: what the method says; of a network of clips, as often as its window has new frames."""
    return view.stride if isinstance(view, ClipView) else getattr(method, "key_frame_interval", 1)


def without_files(recipe: Recipe) -> Recipe:
    """The recipe on synthetic frames and from random weights, once its data sources' names and options are checked."""
    for where, sources in (("data.train", recipe.data.train), ("data.evaluate", recipe.data.evaluate)):
        for number, source in enumerate(sources):
            options = dict(source)
            place = f"{where}.{number}"
            check_options(choose(DATASETS, str(options.pop("name", "")), where=place), options, where=place)
    recipe = recipe.model_copy(deep=True)
    for settings in (recipe.teacher, recipe.student):
        if settings is not None:
            settings.backbone = None
            settings.checkpoint = None if settings.name is not None else settings.checkpoint
    if recipe.teacher is not None:
        recipe.teacher.cache = None
    recipe.data.train, recipe.data.evaluate, recipe.data.labels = [{"name": "synthetic"}], [], "none"
    return recipe


def _with_table(recipe: Recipe) -> dict[str, Any]:
    """The method's options, with a place in the run folder for the latencies that a search measures."""
    options = copy.deepcopy(recipe.method)
    search = options.get("search")
    if not isinstance(search, dict):
        return options
    search.setdefault("table", str(recipe.out / "latency_table.json"))
    if recipe.optim.name != "adamw" and "gate_learning_rate" not in search:
        raise UserError(
            f"method.search: the gates' own rate suits adamw; with {recipe.optim.name} give search.gate_learning_rate"
        )
    return options


def build_datasets(sources: Sequence[dict[str, Any]], *, where: str) -> list[VideoDataset]:
    """The data sets of a list of sources. Errors: UserError for an unknown name or option."""
    datasets = []
    for number, source in enumerate(sources):
        options = dict(source)
        place = f"{where}.{number}"
        builder = choose(DATASETS, str(options.pop("name", "")), where=place)
        datasets.append(call(builder, options, where=place))
    return datasets


def build_task(options: dict[str, Any]) -> Task:
    """A task from `{name, …its options}`."""
    rest = dict(options)
    return call(choose(TASKS, str(rest.pop("name", "")), where="task"), rest, where="task")


def build_method(options: dict[str, Any]) -> Method:
    """A method from `{name, …its options}`."""
    rest = dict(options)
    return call(choose(METHODS, str(rest.pop("name", "")), where="method"), rest, where="method")


def _task_options(recipe: Recipe, labelled: VideoDataset | None, teacher: Card | None) -> dict[str, Any]:
    """The task with its number of classes: the recipe's, else the teacher's, else the data's."""
    options = dict(recipe.task)
    if not choose(TASKS, str(options.get("name", "")), where="task").has_classes:
        if recipe.data.labels == "pseudo":
            raise UserError(f"data.labels: pseudo is for tasks with classes, and {options['name']} has none")
        return options
    if "num_classes" not in options:
        known = teacher.task.get("num_classes") if teacher else None
        known = known or (labelled.num_classes if labelled else None)
        if not known:
            raise UserError(
                "task.num_classes: neither the data nor the teacher's checkpoint knows it; give it in the recipe"
            )
        options["num_classes"] = known
    if labelled and labelled.num_classes != options["num_classes"] and recipe.data.labels != "none":
        raise UserError(
            f"task.num_classes is {options['num_classes']}, but {labelled.name} has {labelled.num_classes} classes"
        )
    return options


def _saved_teacher(recipe: Recipe) -> tuple[StatefulNetwork | None, Card | None]:
    """The teacher with its card, where the recipe leaves its name to the checkpoint of a run of ours."""
    settings = recipe.teacher
    if settings is None or settings.name is not None:
        return None, None
    if settings.checkpoint is None:
        raise UserError("teacher: give a name, or the checkpoint of a run of ours")
    student = load_student(settings.checkpoint)
    assert student.card is not None
    if student.card.form != "per_frame":
        raise UserError(f"teacher.checkpoint {settings.checkpoint}: is a {student.card.form} student, not a network")
    return student, student.card


def _student_network(
    recipe: Recipe, teacher: StatefulNetwork | None, teacher_card: Card | None, common: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The network that the student starts as, and how its card names it. common: what the task's networks get."""
    settings: NetworkSettings = recipe.student
    if recipe.student.from_ == "teacher" or (settings.name is None and settings.checkpoint is None):
        if teacher is None or recipe.teacher is None:
            raise UserError("student: give a name, or a teacher to start from")
        if teacher_card is not None:
            return copy.deepcopy(teacher.network), teacher_card.network
        return copy.deepcopy(teacher.network), _spec(recipe.teacher, common)
    if settings.name is None:
        started = load_student(settings.checkpoint or "")
        assert started.card is not None
        return started.network, started.card.network
    network = _weighted(settings, common)
    return network, _spec(settings, common)


def _spec(settings: NetworkSettings, common: dict[str, Any]) -> dict[str, Any]:
    return {"name": settings.name, "library": settings.library, "options": common | settings.options}


def _weighted(settings: NetworkSettings, common: dict[str, Any]) -> nn.Module:
    """The network with the weights that the recipe names."""
    network = build_network(settings.name or "", settings.library, common | settings.options)
    if settings.backbone is not None:
        load_backbone(network, settings.backbone)
    if settings.checkpoint is not None:
        load_weights(network, settings.checkpoint)
    return network
