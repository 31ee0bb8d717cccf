"""A run from its recipe to its page: train, save, score, measure, show."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidistill.runs.build import Run
from vidistill.students.files import load_student, save_student
from vidistill.methods.processes import is_main_process, leave_processes
from vidistill.students.student import StatefulNetwork
from vidistill.errors import UserError
from vidistill.files import occupied
from vidistill.runs.recipe import Recipe, load_recipe, save_recipe
from vidistill.report.page import write_report
from vidistill.scoring import SCORINGS
from vidistill.scoring.frames import CPU
from vidistill.scoring.results import write_results
from vidistill.runs.train import train

FREE = (
    "out",
    "tensorboard",
    "teacher.cache",
    "method.search.table",
    "data.evaluate",
    "optim.steps",
    "optim.num_workers",
    "optim.checkpoint_every",
)


def execute(run: Run) -> dict[str, Any] | None:
    """Trains, then leaves the run folder whole; returns what `results.json` holds (None on all but one process).

    A run that was killed goes on from its checkpoint; one that is complete is only scored again.
    Errors: UserError where the folder holds a run of another recipe, or another process trains into it.
    """
    refuse_nothing_to_learn(run)
    is_main = is_main_process()
    with occupied(run.recipe.out) if is_main else nullcontext():
        return _execute(run, is_main)


def _execute(run: Run, is_main: bool) -> dict[str, Any] | None:
    folder = run.recipe.out
    if (folder / "checkpoint.pt").exists():
        _refuse_another(run.recipe, folder / "recipe.yaml")
    if is_main:
        save_recipe(run.recipe, folder / "recipe.yaml")
    trained = train(run.training)
    leave_processes()
    if not is_main:
        return None
    student = run.training.method.finish(trained)
    plan = student.plan.to_list() if student.plan else []  # a search has chosen since the card was made
    save_student(folder / "student.safetensors", student, replace(run.card, plan=plan))
    return score(run, saved_student(run))


def saved_student(run: Run) -> StatefulNetwork:
    """The student in the folder of a run that has trained, on the device where it was trained."""
    trained = run.training.student
    saved = load_student(run.recipe.out / "student.safetensors", None if run.card.network else trained.network)
    return saved.to(device_of(trained))


def device_of(model: torch.nn.Module) -> torch.device:
    """Where its first parameter is; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), CPU)


def refuse_nothing_to_learn(run: Run) -> None:
    """Errors: UserError where the recipe leaves labels out, and there is no teacher to learn from instead."""
    labels, training = run.recipe.data.labels, run.training
    is_own_teacher = not getattr(training.method, "train_key_path", True)
    if labels != "given" and training.teacher is None and not is_own_teacher:
        raise UserError(f"data.labels: {labels} needs a teacher, and the recipe has none")


def _refuse_another(recipe: Recipe, path: Path) -> None:
    """Errors: UserError where the recipe at `path` decides otherwise what is trained; more steps go on."""
    before, now = (_flat(r.model_dump(mode="json", by_alias=True)) for r in (load_recipe(path), recipe))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(FREE):
            raise UserError(
                f"{path.parent}: holds a run whose {key} is {before.get(key)}, and this recipe's is {now.get(key)}; "
                "choose another out=, or delete that folder"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted key; lists stay whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def score(run: Run, student: StatefulNetwork) -> dict[str, Any]:
    """Writes the results, the pictures and the page of a trained student into the run folder.

    Student and teacher are scored and timed on the student's device.
    """
    folder = run.recipe.out
    scoring = SCORINGS[run.setting.task.name]
    setting = replace(run.setting, device=device_of(student))
    teacher = run.teacher.to(setting.device) if run.teacher is not None else None
    results = {"name": folder.name, **scoring.compare(student, teacher, run.evaluation, setting)}
    write_results(results, folder / "results.json")
    if run.evaluation:
        scoring.show(folder, student, teacher, run.evaluation[0].sequences, setting)
    write_report(folder)
    return results
