"""A recipe, built: networks, method, task and clips. The only module that knows every package's door."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidistill.models.declares import declared
from vidistill.students.files import load_student, load_weights
from vidistill.config import (call, choose, pick, validate)
from vidistill.data.datasets import DATASETS
from vidistill.data.class_names import require_classes
from vidistill.data.sequences.classified import classes_of
from vidistill.data.clip import TrainingSamples, VideoDataset
from vidistill.methods import METHODS, Method
from vidistill.students.card import Card
from vidistill.students.norms import batch_norms
from vidistill.students.student import StatefulNetwork
from vidistill.methods.teacher import FrozenTeacher
from vidistill.methods.teacher import TeacherCache
from vidistill.students.windows import stateful
from vidistill.errors import UserError
from vidistill.models import build_network
from vidistill.models.backbone_weights import load_backbone
from vidistill.ops.clip_view import ClipView, View
from vidistill.ops.normalise import Normalisation
from vidistill.runs.recipe import NetworkSettings, Recipe, TeacherSettings
from vidistill.scoring import SCORINGS
from vidistill.scoring.frames import Setting
from vidistill.tasks import TASKS, Task, require_same_frames
from vidistill.runs.train import Training

PSEUDO_CONFIDENCE = 0.9  # unless the task says otherwise


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

    What the recipe leaves to data and checkpoints (`data.clip`, `normalisation`) is written into it. Errors: UserError
    that names the recipe's key for anything unknown, missing or that does not fit together.
    """
    torch.manual_seed(recipe.seed)
    train_sets = build_datasets(recipe.data.train, where="data.train")
    evaluation = build_datasets(recipe.data.evaluate, where="data.evaluate")
    labelled = _labelled(recipe, train_sets, evaluation)
    saved = _saved_teacher(recipe.teacher)
    card = saved.card if saved is not None else None
    task_options = _task_options(recipe, labelled, card)
    if recipe.data.labels == "pseudo":
        task = build_task({"confidence": PSEUDO_CONFIDENCE} | task_options)
    else:
        task = build_task({name: value for name, value in task_options.items() if name != "confidence"})
    if card is not None:
        require_same_frames(build_task(card.task), task, where="teacher.checkpoint")
    clips = _clips(recipe, task, train_sets)
    teacher = _teacher(recipe.teacher, saved, task, clips)
    torch.manual_seed(recipe.seed)  # again, for a student starts alike with a teacher and alone
    network, spec = _student_network(recipe, teacher, card, task.network_options)
    network.requires_grad_(True)  # what was loaded was frozen
    normalisation, teacher_normalisation = _normalisations(
        recipe, task, card, teacher.network if teacher is not None else network
    )
    recipe.normalisation = dict(normalisation.to_dict())
    frozen = None
    if teacher is not None:
        teacher.normalisation = teacher_normalisation
        frozen = FrozenTeacher(teacher.network, teacher.view, _cache(recipe, teacher.network))
    method = build_method(_with_table(recipe))
    view = clips.view_of(_view_changes(recipe.student, network, None))
    student = method.prepare(network, clips.example(), view=view, teacher=frozen)
    weights = {**task.default_losses, **method.default_losses, **recipe.losses}
    training = Training(
        student, frozen, method, task, clips, weights, recipe.optim, normalisation, recipe.seed, recipe.out,
        recipe.tensorboard, teacher_normalisation,
    )  # fmt: skip
    named = labelled or card
    own_card = Card(
        spec, method.form, task_options, student.plan.to_list() if student.plan else [], normalisation,
        named.class_names if named else (), named.palette if named else (), _interval(method, view), view,
    )  # fmt: skip
    setting = Setting(task, task_options.get("num_classes", 0), normalisation)
    SCORINGS[task.name].check([view, teacher.view if teacher is not None else None], evaluation, setting)
    return Run(recipe, training, teacher, own_card, evaluation, setting)


def _labelled(
    recipe: Recipe, train_sets: Sequence[VideoDataset], evaluation: Sequence[VideoDataset]
) -> VideoDataset | None:
    """The data set that knows the classes: the first whose labels are used, else the first that has any.

    Errors: UserError where another one whose labels are used has other classes.
    """
    used = [*train_sets, *evaluation] if recipe.data.labels != "none" else list(evaluation)
    known = next((d for d in [*used, *train_sets] if d.num_classes), None)
    if known is not None:
        require_classes(known.class_names, known.name, used)
    return known


def _clips(recipe: Recipe, task: Task, train_sets: Sequence[VideoDataset]) -> TrainingSamples:
    settings = validate(task.clip_settings, recipe.data.clip, where="data.clip")
    recipe.data.clip = settings.model_dump(mode="json")
    return task.samples(settings, train_sets, use_labels=recipe.data.labels != "none")


def _saved_teacher(settings: TeacherSettings | None) -> StatefulNetwork | None:
    """The teacher with its card, where the recipe leaves its name to the checkpoint of a run of ours."""
    if settings is None or settings.name is not None:
        return None
    if settings.checkpoint is None:
        raise UserError("teacher: give a name, or the checkpoint of a run of ours")
    saved = load_student(settings.checkpoint)
    assert saved.card is not None
    if saved.card.form != "per_frame":
        raise UserError(f"teacher.checkpoint {settings.checkpoint}: is a {saved.card.form} student, not a network")
    return saved


def _teacher(
    settings: TeacherSettings | None, saved: StatefulNetwork | None, task: Task, clips: TrainingSamples
) -> StatefulNetwork | None:
    """The teacher with its view of the run's clips: the saved one, else the one that the recipe names."""
    if settings is None:
        return None
    network = _weighted(settings, task.network_options) if saved is None else saved.network
    view = clips.view_of(_view_changes(settings, network, saved.card if saved is not None else None))
    return stateful(network, view).eval()


def _cache(recipe: Recipe, teacher: nn.Module) -> TeacherCache | None:
    if recipe.teacher is None or recipe.teacher.cache is None:
        return None
    if "draws" not in recipe.data.clip:
        raise UserError(
            f"teacher.cache: training clips of {recipe.task['name']} have no data.clip.draws, so that hardly one would "
            "come again; leave it out"
        )
    if not recipe.data.clip.get("draws"):
        raise UserError(
            "teacher.cache: no clip would ever come again; say with data.clip.draws how many may be drawn of each video"
        )
    if any(norm.running_mean is None for norm in batch_norms(teacher)):
        raise UserError(
            "teacher.cache: the teacher's batch normalisation has no statistics of its own, so what it says of a clip "
            "depends on the others of its batch; leave it out"
        )
    return TeacherCache(recipe.teacher.cache)


def _normalisations(
    recipe: Recipe, task: Task, teacher: Card | None, first: nn.Module
) -> tuple[Normalisation, Normalisation]:
    """The student's and the teacher's: what the recipe says, else what the teacher was trained with, else what `first`,
    the teacher's network or that of a student alone, says that its published weights want, else the task's."""
    published = declared(first).normalisation or task.normalisation
    known = teacher.normalisation if teacher is not None else published
    given = task.normalisation.to_dict() | recipe.normalisation
    own = call(Normalisation, given, where="normalisation") if recipe.normalisation else known
    said = recipe.teacher.normalisation if recipe.teacher is not None else {}
    if said:
        return own, call(Normalisation, dict(said), where="teacher.normalisation")
    return own, known if teacher is not None else own


def _view_changes(settings: NetworkSettings, network: nn.Module, card: Card | None) -> dict[str, Any]:
    """How a network sees less than the whole clip: as the recipe says, else as it was trained, or as it says itself."""
    window = declared(network).window
    trained: dict[str, Any] = {}
    if card is not None and isinstance(card.view, ClipView):
        trained = {"num_frames": card.view.num_frames, "size": card.view.size, "detail": card.view.detail}
    return {**({} if window is None else {"window": window}), **trained, **settings.view.model_dump(exclude_none=True)}


def _interval(method: Method, view: View | None) -> int:
    """The default for a stream: what the method says; of a network of clips, as often as its window has new frames."""
    return view.stride if isinstance(view, ClipView) else getattr(method, "key_frame_interval", 1)


def latency_table_path(recipe: Recipe) -> Path:
    """Of the latencies that a search reads, or measures: what the recipe says, else in the run folder."""
    return Path(recipe.method["search"].get("table") or recipe.out / "latency_table.json")


def _with_table(recipe: Recipe) -> dict[str, Any]:
    """The method's options, with a place for the latencies that a search measures."""
    options = copy.deepcopy(recipe.method)
    search = options.get("search")
    if not isinstance(search, dict):
        return options
    search["table"] = str(latency_table_path(recipe))
    if recipe.optim.name != "adamw" and "gate_learning_rate" not in search:
        raise UserError(
            f"method.search: the gates' own rate suits adamw; with {recipe.optim.name} give search.gate_learning_rate"
        )
    return options


def build_datasets(sources: Sequence[dict[str, Any]], *, where: str) -> list[VideoDataset]:
    """The data sets of a list of sources. Errors: UserError for an unknown name or option."""
    places = [f"{where}.{number}" for number in range(len(sources))]
    return [
        call(*pick(DATASETS, source, where=place), where=place) for place, source in zip(places, sources, strict=True)
    ]


def build_task(options: dict[str, Any]) -> Task:
    """A task from `{name, …its options}`."""
    return call(*pick(TASKS, options, where="task"), where="task")


def build_method(options: dict[str, Any]) -> Method:
    """A method from `{name, …its options}`."""
    return call(*pick(METHODS, options, where="method"), where="method")


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
        first = next(
            (s.name for s in labelled.sequences if max(classes_of(s), default=0) >= options["num_classes"]), ""
        )
        raise UserError(
            f"task.num_classes is {options['num_classes']}, but {labelled.name} has {labelled.num_classes} classes"
            + (f"; the first video of a class beyond is {first}" if first else "")
        )
    return options


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
