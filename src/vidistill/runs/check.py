"""What is wrong with a recipe or its data, before any training."""

from collections.abc import Sequence
from pathlib import Path

from vidistill.config import Values, check_options, pick
from vidistill.data.clip import VideoDataset
from vidistill.data.sequences.boxes import BoxedSequence
from vidistill.data.sequences.videos import VideoSequence
from vidistill.errors import UserError
from vidistill.progress import track
from vidistill.runs.build import build, build_datasets
from vidistill.runs.recipe import Recipe, load_recipe
from vidistill.runtimes.measure import stateful_gmacs
from vidistill.tasks import DATASETS


def check_data(source: Values) -> list[str]:
    """Every problem of a data set, printed as it is found with what else is worth a note."""
    return _problems(build_datasets([source], where="data"))


def check_recipe(path: str | Path, assignments: Sequence[str], *, alone: bool = False) -> list[str]:
    """Every problem of the recipe's data, printed as it is found; then what the recipe builds, with its cost.

    alone: neither the data nor the checkpoints that the recipe names need to be here.

    Raises:
        UserError: the recipe itself is wrong.
    """
    recipe = load_recipe(path, assignments)
    if alone:
        recipe = without_files(recipe)
    problems = _problems(build_datasets([*recipe.data.train, *recipe.data.evaluate], where="data"))
    if problems:
        return problems
    run = build(recipe, measures=False)
    student = run.training.method.finish(run.training.student)  # the form that will run
    clips, card = run.training.clips, student.card
    height, width = clips.example().shape[-2:]
    costs = stateful_gmacs(student, (height, width), key_frame_interval=card.key_frame_interval)
    print(f"{len(clips)} training samples; student {card.form} of {card.network.get('name')}")
    print(f"GMAC per frame at {width}x{height}: " + ", ".join(f"{name} {value:.2f}" for name, value in costs.items()))
    if student.plan is not None:
        print(student.plan)
    return []


def without_files(recipe: Recipe) -> Recipe:
    """The recipe on synthetic frames and from random weights, once its data sources' names and options are checked.

    Raises:
        UserError: one of these is wrong, or a network is named by nothing but a checkpoint that is not here.
    """
    for where, sources in (("data.train", recipe.data.train), ("data.evaluate", recipe.data.evaluate)):
        for number, source in enumerate(sources):
            place = f"{where}.{number}"
            check_options(*pick(DATASETS, source, where=place), where=place)
    recipe = recipe.model_copy(deep=True)
    for role, settings in (("teacher", recipe.teacher), ("student", recipe.student)):
        if settings is None:
            continue
        settings.backbone = None
        settings.checkpoint = None if settings.name is not None else settings.checkpoint
        if settings.checkpoint is not None and not settings.checkpoint.exists():
            raise UserError(
                f"{role}.checkpoint {settings.checkpoint}: is not here, and nothing else names the {role}'s network; "
                f"train it first, or name a network for this check, as in {role}.name=…"
            )
    if recipe.teacher is not None:
        recipe.teacher.cache = None
    stand_in = recipe.task.stand_in(recipe.data.clip)
    recipe.data.train, recipe.data.evaluate, recipe.data.labels = [stand_in], [], "none"
    return recipe


def _problems(datasets: list[VideoDataset]) -> list[str]:
    problems = []
    for dataset in datasets:
        for note in dataset.notes:
            print(f"note: {note}")
        for sequence in track(dataset.sequences, f"checking {dataset.name}", total=len(dataset.sequences)):
            own = sequence.problems()
            notes = sequence.notes() if isinstance(sequence, BoxedSequence | VideoSequence) and not own else []
            for sentence in [*own, *(f"note: {note}" for note in notes)]:
                print(sentence)
            problems += own
    return problems
