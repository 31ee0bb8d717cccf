"""A run from its recipe to its page: train, save, score, measure, show."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from vidistill.config import Values
from vidistill.errors import UserError
from vidistill.files import occupied
from vidistill.methods import Method
from vidistill.methods.processes import is_main_process, leave_processes
from vidistill.report.page import PageParts, write_report
from vidistill.runs.build import Run
from vidistill.runs.checkpoints import Checkpoints
from vidistill.runs.recipe import NetworkSettings, Recipe, load_recipe, save_recipe
from vidistill.runs.rehearsal import finished, rehearse
from vidistill.runs.results import baselines_of, compare, write_results
from vidistill.runs.train import train
from vidistill.stream.pictures import write_pictures
from vidistill.stream.stream import Running
from vidistill.students.files import load_student, save_student
from vidistill.students.student import Student
from vidistill.tasks import Task

FREE = (  # what may change in a recipe without making it another run
    "out",
    "measure.*",
    "tensorboard",
    "teacher.cache",
    "method.search.table",
    "data.evaluate",
    "optim.steps",
    "optim.num_workers",
    "optim.checkpoint_every",
)
RATES = (  # and what may change to go on after it has diverged
    "optim.learning_rate",
    "optim.clip_norm",
    "optim.momentum",
    "optim.weight_decay",
    "optim.warmup_steps",
    "optim.precision",
    "losses.*",
    "method.*learning_rate*",
)


def execute(run: Run) -> Values | None:
    """Trains, then leaves the run folder whole; returns the contents of `results.json` (None on all but one process).

    A run that was killed continues from its checkpoint; one that is complete is only scored again.

    Raises:
        UserError: the folder holds a run of another recipe, or another process trains into it.
    """
    refuse_nothing_to_learn(run)
    if run.evaluation:
        rehearse(run, finished(run), run.evaluation)
    is_main, folder = is_main_process(), run.recipe.out
    with occupied(folder) if is_main else nullcontext():
        checkpoints = Checkpoints(folder)
        if checkpoints.exist():
            free = (*FREE, *RATES) if checkpoints.has_diverged else FREE
            _refuse_another(run.recipe, folder / "recipe.yaml", free)
        if is_main:
            for note in notes(run.recipe):
                print(f"note: {note}")
            save_recipe(run.recipe, folder / "recipe.yaml")
        trained = train(run.training)
        leave_processes()
        if not is_main:
            return None
        save_student(folder / "student.safetensors", run.training.method.finish(trained))
        return score(run, saved_student(run))


def saved_student(run: Run) -> Student:
    """The student in the folder of a run that has trained, on the device where it was trained."""
    trained = run.training.student
    network = None if trained.card.network else trained.network
    return load_student(run.recipe.out / "student.safetensors", network).to(trained.device)


def refuse_nothing_to_learn(run: Run) -> None:
    """Checks that the student has labels or a teacher to learn from.

    Raises:
        UserError: the recipe leaves labels out, or the data has none, and there is no teacher.
    """
    labels, training = run.recipe.data.labels, run.training
    if training.teacher is not None or training.method.is_own_teacher:
        return
    if labels != "given":
        raise UserError(f"data.labels: {labels} needs a teacher, and the recipe has none; give one, or labels: given")
    if not any(run.task.has_labels(sequence) for dataset in run.train_sets for sequence in dataset.sequences):
        raise UserError("data.train: has no labels, and the recipe has no teacher; give labelled data, or a teacher")


def notes(recipe: Recipe) -> list[str]:
    """What is allowed, but hardly meant, a sentence each."""
    found = []
    teacher = recipe.teacher
    if teacher is not None and teacher.name is not None and not _has_weights(teacher):
        found.append(
            f"teacher: '{teacher.name}' is given no weights, so that the student learns from random outputs unless the "
            "network loads some itself; give teacher.checkpoint"
        )
    if recipe.method.is_own_teacher and teacher is None and not _has_weights(recipe.student):
        found.append("student: is given no weights and keeps its key path as it is, random; give student.checkpoint")
    if not recipe.data.evaluate:
        found.append("data.evaluate: is empty, so that the student is not scored")
    return found


def _has_weights(settings: NetworkSettings) -> bool:
    """Whether the recipe names any, also as an option of a library such as `pretrained` or `weights`."""
    asked = [name for name, value in settings.options.items() if value and ("weights" in name or "pretrained" in name)]
    return bool(settings.checkpoint or settings.backbone or asked)


def _refuse_another(recipe: Recipe, path: Path, free: Sequence[str]) -> None:
    """Raises UserError where the recipe at `path` decides otherwise what is trained; more steps continue the run.

    free: patterns of the keys that may change.
    """
    before, now = (_flat(r.model_dump(mode="json", by_alias=True)) for r in (load_recipe(path), recipe))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not any(fnmatchcase(key, pattern) for pattern in free):
            raise UserError(
                f"{path.parent}: holds a run whose {key} is {before.get(key)}, and this recipe's is {now.get(key)}; "
                "choose another out=, or delete that folder"
            )


def _flat(values: Values, prefix: str = "") -> Values:
    """By dotted key; lists stay whole."""
    flat: Values = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def score(run: Run, student: Student) -> Values:
    """Writes the results, the pictures and the page of a trained student into the run folder.

    Student and teacher are scored and timed on the student's device, as the recipe's `measure` says.
    """
    folder, task, measure = run.recipe.out, run.task, run.recipe.measure
    running = Running(runtime=measure.runtime, precision=measure.precision, threads=measure.threads)
    teacher = run.teacher.to(student.device) if run.teacher is not None else None
    results = {"name": folder.name, **compare(student, teacher, run.evaluation, task, running=running)}
    write_results(results, folder / "results.json")
    if run.evaluation:
        shown = {"student": student} | baselines_of(task, student)
        if teacher is not None:
            if not teacher.sees_clips:  # which run as often as their own windows have new frames
                teacher.card = replace(teacher.card, key_frame_interval=student.card.key_frame_interval)
            shown["teacher"] = teacher
        write_pictures(folder, shown, run.evaluation[0].sequences, task, running=running)
    write_report(folder, page_parts(task, [run.training.method]))
    return results


def page_parts(task: Task, methods: Sequence[Method | type[Method]]) -> PageParts:
    """What a task and the methods that a log may come from add to a run's page."""
    return PageParts(
        metrics=task.metrics,
        figures=lambda run: [*(p for method in methods for p in method.figures(run.log)), *task.report_figures(run)],
        sections=task.report_sections,
        observed=tuple(name for method in methods for name in method.observed),
    )
