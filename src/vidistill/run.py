"""A run from its recipe to its page: train, save, score, measure, show."""

from dataclasses import replace
from typing import Any

import torch

from vidistill.checkpoint import load_student, save_student
from vidistill.distill.stateful import StatefulNetwork
from vidistill.recipe import Run, save_recipe
from vidistill.report.page import write_report
from vidistill.scoring import SCORINGS
from vidistill.scoring.results import write_results
from vidistill.train import train


def execute(run: Run) -> dict[str, Any] | None:
    """Trains, then leaves the run folder whole; returns what `results.json` holds (None on all but one process).

    A run that was killed goes on from its checkpoint; one that is complete is only scored again.
    """
    folder = run.recipe.out
    is_main = int(torch.distributed.get_rank() if torch.distributed.is_initialized() else 0) == 0
    if is_main:
        save_recipe(run.recipe, folder / "recipe.yaml")
    trained = train(run.training)
    if not is_main:
        return None
    student = run.training.method.finish(trained)
    plan = student.plan.to_list() if student.plan else []  # a search has chosen since the card was made
    save_student(folder / "student.safetensors", student, replace(run.card, plan=plan))
    return score(run, load_student(folder / "student.safetensors", None if run.card.network else student.network))


def score(run: Run, student: StatefulNetwork) -> dict[str, Any]:
    """Writes the results, the pictures and the page of a trained student into the run folder."""
    folder = run.recipe.out
    scoring = SCORINGS[run.setting.task.name]
    results = {"name": folder.name, **scoring.compare(student, run.teacher, run.evaluation, run.setting)}
    write_results(results, folder / "results.json")
    if run.evaluation:
        scoring.show(folder, student, run.teacher, run.evaluation[0].sequences, run.setting)
    write_report(folder)
    return results
