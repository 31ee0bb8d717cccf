"""What is wrong with a recipe or its data, before any training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidistill.runs.build import (build, build_datasets, build_task, latency_table_path)
from vidistill.config import check_options, pick, validate
from vidistill.data.datasets import DATASETS
from vidistill.data.sequences.boxes import BoxedSequence
from vidistill.data.clip import VideoDataset
from vidistill.ops.clip_view import WindowView
from vidistill.runtimes.measure import stateful_gmacs
from vidistill.progress import track
from vidistill.runs.recipe import Recipe, load_recipe
from vidistill.tasks.super_resolution.task import SuperResolution


def check_data(source: dict[str, Any]) -> list[str]:
    """Every problem of a data set, printed as it is found with what else is worth a note."""
    return _problems(build_datasets([source], where="data"))


def check_recipe(path: str | Path, assignments: Sequence[str], *, alone: bool = False) -> list[str]:
    """Every problem of the recipe's data, printed as it is found; then what the recipe builds, with its cost.

    alone: neither the data nor the checkpoints that the recipe names need to be here. Errors: UserError where the
    recipe itself is wrong.
    """
    recipe = load_recipe(path, assignments)
    if alone:
        recipe = without_files(recipe)
    sources = [*recipe.data.train, *recipe.data.evaluate]
    problems = _problems(build_datasets(sources, where="data"))
    if problems:
        return problems
    _spare_table(recipe)
    run = build(recipe)
    student = run.training.method.finish(run.training.student)  # the form that will run
    clips = run.training.clips
    example = clips.example()
    height, width = example.shape[-2:]
    size = example.shape[1:] if isinstance(run.card.view, WindowView) else (height, width)
    costs = stateful_gmacs(student, size, key_frame_interval=run.card.key_frame_interval)
    print(f"{len(clips)} training samples; student {run.card.form} of {run.card.network.get('name')}")
    print(f"GMAC per frame at {width}×{height}: " + ", ".join(f"{name} {value:.2f}" for name, value in costs.items()))
    if student.plan is not None:
        print(student.plan)
    return []


def _spare_table(recipe: Recipe) -> None:
    """Has a search by latency count MACs where its table is not there yet: measuring it is the run's."""
    search = recipe.method.get("search")
    if isinstance(search, dict) and not latency_table_path(recipe).exists():
        search["cost"] = "macs"


def without_files(recipe: Recipe) -> Recipe:
    """The recipe on synthetic frames and from random weights, once its data sources' names and options are checked."""
    for where, sources in (("data.train", recipe.data.train), ("data.evaluate", recipe.data.evaluate)):
        for number, source in enumerate(sources):
            place = f"{where}.{number}"
            check_options(*pick(DATASETS, source, where=place), where=place)
    recipe = recipe.model_copy(deep=True)
    for settings in (recipe.teacher, recipe.student):
        if settings is not None:
            settings.backbone = None
            settings.checkpoint = None if settings.name is not None else settings.checkpoint
    if recipe.teacher is not None:
        recipe.teacher.cache = None
    recipe.data.train, recipe.data.evaluate, recipe.data.labels = [_stand_in(recipe)], [], "none"
    return recipe


def _stand_in(recipe: Recipe) -> dict[str, Any]:
    """Synthetic frames, for super-resolution so large that a patch fits."""
    if recipe.task.get("name") != SuperResolution.name:
        return {"name": "synthetic"}
    settings = validate(SuperResolution.clip_settings, recipe.data.clip, where="data.clip")
    side = max(64, settings.patch * build_task(recipe.task).network_options["scale"])
    return {"name": "synthetic", "size": [side, side]}


def _problems(datasets: list[VideoDataset]) -> list[str]:
    found = []
    for dataset in datasets:
        for sequence in track(dataset.sequences, f"checking {dataset.name}", total=len(dataset.sequences)):
            problems = sequence.problems()
            notes = sequence.notes() if isinstance(sequence, BoxedSequence) and not problems else []
            for sentence in [*problems, *(f"note: {note}" for note in notes)]:
                print(sentence)
            found += problems
    return found
