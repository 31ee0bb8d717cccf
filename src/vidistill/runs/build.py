"""A recipe, built: networks, method, task and clips. The only module that reads every registry."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vidistill.config import Values, call, pick
from vidistill.data.class_names import require_classes
from vidistill.data.clip import TrainingSamples, VideoDataset
from vidistill.data.sequences.classified import classes_of
from vidistill.errors import UserError, as_user_error
from vidistill.methods.processes import num_processes
from vidistill.methods.teacher import FrozenTeacher, TeacherCache
from vidistill.models import build_network
from vidistill.models.backbone_weights import load_backbone
from vidistill.models.declares import declared
from vidistill.models.weights import load_weights
from vidistill.ops.clip_view import ClipView
from vidistill.ops.modules import copied, trainable
from vidistill.runs.recipe import NetworkSettings, Recipe, TeacherSettings
from vidistill.runs.train import Training
from vidistill.students.card import Card
from vidistill.students.files import load_student
from vidistill.students.norms import batch_norms
from vidistill.students.student import Student
from vidistill.students.windows import as_student
from vidistill.tasks import DATASETS, Task, require_same_frames, task_of
from vidistill.tasks.contract import ClassTask

PSEUDO_CONFIDENCE = 0.9  # unless the task's settings give another


@dataclass(kw_only=True)
class Run:
    """A recipe, built: what trains, what it is compared with, and what it is scored on.

    recipe: with what data and checkpoints decided filled in.
    """

    recipe: Recipe
    training: Training
    teacher: Student | None
    train_sets: list[VideoDataset]
    evaluation: list[VideoDataset]

    @property
    def task(self) -> Task:
        return self.training.task


def build(recipe: Recipe, *, measures: bool = True) -> Run:
    """Builds all that a run needs, with the random start of new weights decided by the seed. The recipe stays as it is.

    Args:
        recipe: what to build.
        measures: False to leave out what a method would first have to measure on this machine.

    Raises:
        UserError: something is unknown, missing or does not fit together; it names the recipe's key.
    """
    recipe.optim.require_whole_parts(num_processes())
    torch.manual_seed(recipe.seed)
    train_sets = build_datasets(recipe.data.train, where="data.train")
    evaluation = build_datasets(recipe.data.evaluate, where="data.evaluate")
    labelled = _labelled(recipe, train_sets, evaluation)
    saved = _saved_teacher(recipe.teacher)
    task = _resolved_task(recipe, labelled, saved)
    check_classes(task, evaluation)
    clips = task.samples(recipe.data.clip, train_sets, use_labels=recipe.data.labels != "none")
    _require_memory(recipe, clips)
    teacher = _teacher(recipe, saved, task, clips)
    torch.manual_seed(recipe.seed)  # again, for a student starts alike with a teacher and alone
    network, spec = _student_network(recipe, teacher, task)
    trainable(network)  # what was loaded was frozen
    # the recipe's, else what the teacher was trained with, else what the published weights want, else the task's
    declared_by = declared(teacher.network if teacher is not None else network).normalisation
    trained_with = saved.card.normalisation if saved is not None else None
    normalisation = recipe.normalisation or trained_with or declared_by or task.normalisation
    method = recipe.method.for_run(recipe.out, optimiser=recipe.optim.name, measures=measures)
    view = clips.view_of(_view_changes(recipe.student, network, None))
    named = _named(task, labelled) or (saved.card if saved is not None else Card())
    card = Card(
        network=spec,
        task=task,
        normalisation=normalisation,
        class_names=named.class_names,
        palette=named.palette,
        # a network of clips runs as often as its window has new frames
        key_frame_interval=view.stride if isinstance(view, ClipView) else method.key_frame_interval,
        view=view,
    )
    frozen = None
    if teacher is not None:
        own = recipe.teacher.normalisation if recipe.teacher is not None else None
        own = own or trained_with or normalisation
        teacher.card = replace(teacher.card, normalisation=own, class_names=named.class_names, palette=named.palette)
        frozen = FrozenTeacher(teacher.network, teacher.view, _cache(recipe, task, teacher.network))
    with as_user_error(
        f"method {method.name} cannot make a student of {type(network).__name__}",
        "a network must take one tensor of frames, of the size of the training clips; look at data.clip",
    ):
        student = method.prepare(network, clips.example(), card=card, teacher=frozen)
    for dataset in evaluation:
        task.check_videos(dataset.sequences, [view, teacher.view if teacher is not None else None])
    training = Training(
        student=student,
        teacher=frozen,
        teacher_normalisation=None if teacher is None else teacher.normalisation,
        method=method,
        task=task,
        clips=clips,
        loss_weights={**task.default_losses, **type(method).default_losses, **recipe.losses},
        optim=recipe.optim,
        normalisation=normalisation,
        seed=recipe.seed,
        folder=recipe.out,
        tensorboard=recipe.tensorboard,
    )
    resolved = recipe.model_copy(update={"normalisation": normalisation})
    return Run(recipe=resolved, training=training, teacher=teacher, train_sets=train_sets, evaluation=evaluation)


def _require_memory(recipe: Recipe, clips: TrainingSamples) -> None:
    """Errors: UserError where the frames of a batch alone, as float32, fill a quarter of the memory."""
    shape = clips.example().shape
    frames = 1 if len(shape) == 5 else getattr(recipe.data.clip, "num_frames", 1)
    needed = 4 * math.prod(shape) * frames * recipe.optim.part_size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**40
    if 4 * needed > memory:
        raise UserError(
            f"optim.batch_size {recipe.optim.batch_size}: the frames of a batch of clips {tuple(shape[1:])} take "
            f"{needed / 1e9:.1f} GB of this machine's {memory / 1e9:.1f} GB; lower optim.batch_size or data.clip.crop"
        )


def _labelled(
    recipe: Recipe, train_sets: Sequence[VideoDataset], evaluation: Sequence[VideoDataset]
) -> VideoDataset | None:
    """The data set that knows the classes: the first whose labels are used, else the first that has any.

    Raises:
        UserError: another one whose labels are used has other classes.
    """
    used = [*train_sets, *evaluation] if recipe.data.labels != "none" else list(evaluation)
    known = next((dataset for dataset in [*used, *train_sets] if dataset.num_classes), None)
    if known is not None:
        require_classes(known.class_names, known.name, used)
    return known


def _named(task: Task, labelled: VideoDataset | None) -> VideoDataset | None:
    """The data set that names the task's classes: `labelled`, unless its labels are unused and of other classes."""
    if isinstance(task, ClassTask) and labelled is not None:
        names = task.naming(labelled.class_names, ()).class_names  # of which a data set may leave some to the task
        return labelled if len(names) == task.num_ids else None
    return labelled


def check_classes(task: Task, evaluation: Sequence[VideoDataset]) -> None:
    """Before scoring. Errors: UserError for a data set with more classes than the task's networks know."""
    for dataset in evaluation:
        if isinstance(task, ClassTask) and dataset.num_classes > task.num_ids:
            raise UserError(
                f"num_classes is {task.num_classes}, but {dataset.name}, which is scored on, has {dataset.num_classes} "
                "classes; score on data of the same classes"
            )


def _saved_teacher(settings: TeacherSettings | None) -> Student | None:
    """The teacher with its card, where the recipe leaves its name to the checkpoint of a run of ours."""
    if settings is None or settings.name is not None:
        return None
    if settings.checkpoint is None:
        raise UserError("teacher: has neither name nor checkpoint; give a name, or the checkpoint of a run of ours")
    saved = load_student(settings.checkpoint)
    if saved.card.form != "per_frame":
        raise UserError(
            f"teacher.checkpoint {settings.checkpoint}: is a {saved.card.form} student, expected a network; give the "
            "checkpoint that it was distilled from"
        )
    return saved


def _resolved_task(recipe: Recipe, labelled: VideoDataset | None, saved: Student | None) -> Task:
    """The task with its number of classes, the recipe's, else the teacher's, else the data's, and its pseudo-labels.

    Raises:
        UserError: the number is unknown, differs from the data's, or the teacher was trained for another task.
    """
    task, is_pseudo = recipe.task, recipe.data.labels == "pseudo"
    if isinstance(task, ClassTask):
        confidence = (task.confidence or PSEUDO_CONFIDENCE) if is_pseudo else None
        values = {"num_classes": _num_classes(recipe, task, labelled, saved), "confidence": confidence}
        task = task_of(task.to_values() | values)
    elif is_pseudo:
        raise UserError(
            f"data.labels: pseudo is for tasks with classes, and {task.name} has none; choose given or none"
        )
    if saved is not None:
        require_same_frames(saved.task, task, where="teacher.checkpoint")
    return task


def _num_classes(recipe: Recipe, task: ClassTask, labelled: VideoDataset | None, saved: Student | None) -> int:
    trained = saved.card.task if saved is not None else None
    count = task.num_classes or (trained.num_classes if isinstance(trained, ClassTask) else 0)
    count = count or (labelled.num_classes if labelled else 0)
    if not count:
        raise UserError(
            "task.num_classes: neither the data nor the teacher's checkpoint knows it; give it in the recipe"
        )
    if isinstance(trained, ClassTask) and trained.num_classes not in (0, count):
        raise UserError(
            f"task.num_classes is {count}, but the teacher's checkpoint was trained with {trained.num_classes}; give "
            "the teacher's number, or another teacher"
        )
    counted = task_of(task.to_values() | {"num_classes": count})
    if labelled is not None and recipe.data.labels != "none" and _named(counted, labelled) is None:
        beyond = next((s.name for s in labelled.sequences if max(classes_of(s), default=0) >= count), "")
        raise UserError(
            f"task.num_classes is {count}, but {labelled.name} has {labelled.num_classes} classes"
            + (f"; the first video of a class beyond is {beyond}" if beyond else "; give the data's number")
        )
    return count


def _teacher(recipe: Recipe, saved: Student | None, task: Task, clips: TrainingSamples) -> Student | None:
    """The teacher with its view of the run's clips: the saved one, else the one that the recipe names."""
    settings = recipe.teacher
    if settings is None:
        return None
    network = _weighted(settings, task.network_options) if saved is None else saved.network
    view = clips.view_of(_view_changes(settings, network, saved.card if saved is not None else None))
    spec = _spec(settings, task.network_options) if saved is None else saved.card.network
    interval = view.stride if isinstance(view, ClipView) else 1
    return as_student(network, Card(network=spec, task=task, key_frame_interval=interval, view=view)).eval()


def _cache(recipe: Recipe, task: Task, teacher: nn.Module) -> TeacherCache | None:
    if recipe.teacher is None or recipe.teacher.cache is None:
        return None
    draws = getattr(recipe.data.clip, "draws", None)  # of the clip settings that have a number of draws
    if draws is None:
        raise UserError(
            f"teacher.cache: training clips of {task.name} have no data.clip.draws, so that hardly one would come "
            "again; leave it out"
        )
    if not draws:
        raise UserError(
            "teacher.cache: no clip would ever come again; give data.clip.draws, how many may be drawn of each video"
        )
    if any(norm.running_mean is None for norm in batch_norms(teacher)):
        raise UserError(
            "teacher.cache: the teacher's batch normalisation has no statistics of its own, so its outputs of a clip "
            "depend on the others of its batch; leave it out"
        )
    return TeacherCache(recipe.teacher.cache)


def _view_changes(settings: NetworkSettings, network: nn.Module, card: Card | None) -> Values:
    """How a network sees less than the whole clip: as the recipe says, else as it was trained, or as it says itself."""
    window = declared(network).window
    trained: Values = {}
    if card is not None and isinstance(card.view, ClipView):
        trained = {"num_frames": card.view.num_frames, "size": card.view.size, "detail": card.view.detail}
    return {**({} if window is None else {"window": window}), **trained, **settings.view.model_dump(exclude_none=True)}


def build_datasets(sources: Sequence[Values], *, where: str) -> list[VideoDataset]:
    """The data sets of a list of sources.

    Raises:
        UserError: a name or an option is unknown.
    """
    places = [f"{where}.{number}" for number in range(len(sources))]
    return [
        call(*pick(DATASETS, source, where=place), where=place) for place, source in zip(places, sources, strict=True)
    ]


def _student_network(recipe: Recipe, teacher: Student | None, task: Task) -> tuple[nn.Module, Values]:
    """The network that the student starts as, and how its card names it."""
    settings: NetworkSettings = recipe.student
    if recipe.student.from_ == "teacher" or (settings.name is None and settings.checkpoint is None):
        if teacher is None:
            raise UserError("student: has neither name nor checkpoint; give a name, or a teacher to start from")
        return copied(teacher.network), teacher.card.network
    if settings.name is None:
        started = load_student(settings.checkpoint or "")
        return started.network, started.card.network
    return _weighted(settings, task.network_options), _spec(settings, task.network_options)


def _spec(settings: NetworkSettings, common: Values) -> Values:
    """How a card names the network. common: what the task's networks are built with."""
    return {"name": settings.name, "library": settings.library, "options": common | settings.options}


def _weighted(settings: NetworkSettings, common: Values) -> nn.Module:
    """The network with the weights that the recipe names."""
    for name in common.keys() & settings.options.keys():
        if settings.options[name] != common[name]:
            raise UserError(
                f"options.{name} of network '{settings.name}' is {settings.options[name]!r}, the task's is "
                f"{common[name]!r}; leave it out of the options"
            )
    with as_user_error(f"network '{settings.name}' cannot be built with {settings.options}", "correct its options"):
        network = build_network(settings.name or "", settings.library, common | settings.options)
    if not isinstance(network, nn.Module):
        raise UserError(f"network '{settings.name}': its builder must return a torch.nn.Module, got {network!r:.99}")
    if settings.backbone is not None:
        load_backbone(network, settings.backbone)
    if settings.checkpoint is not None:
        load_weights(network, settings.checkpoint)
    return network
