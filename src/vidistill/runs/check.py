"""What is wrong with a recipe or its data, before any training."""

from collections.abc import Sequence
from pathlib import Path

from vidistill.config import Values, check_options, pick
from vidistill.data.clip import VideoDataset
from vidistill.data.sequences.boxes import BoxedSequence
from vidistill.data.sequences.videos import VideoSequence
from vidistill.errors import UserError, as_user_error
from vidistill.progress import track
from vidistill.runs.build import Run, build, build_datasets
from vidistill.runs.recipe import Recipe, load_recipe
from vidistill.runs.rehearsal import finished, rehearse, try_export
from vidistill.runs.run import notes, refuse_nothing_to_learn
from vidistill.runs.train import try_step
from vidistill.runtimes.measure import stateful_gmacs
from vidistill.students.student import Student
from vidistill.tasks import DATASETS


def check_data(source: Values) -> list[str]:
    """Every problem of a data set, printed as it is found with what else is worth a note."""
    return _problems(build_datasets([source], where="data"))


def check_recipe(path: str | Path, assignments: Sequence[str], *, alone: bool = False) -> list[str]:
    """Every problem of the recipe and its data, printed as it is found with all that was tried.

    Tried are: every frame decoded and every label read, one step of training, the student streamed and scored on the
    first frames of the data, its export.

    alone: neither the data nor the checkpoints that the recipe names need to be here.

    Raises:
        UserError: the recipe itself is wrong.
    """
    recipe = load_recipe(path, assignments)
    for note in [] if alone else notes(recipe):
        print(f"note: {note}")
    if alone:
        recipe = without_files(recipe)
    problems = _problems(build_datasets([*recipe.data.train, *recipe.data.evaluate], where="data"))
    if problems:
        return problems
    run = build(recipe, measures=False)
    if not alone:
        refuse_nothing_to_learn(run)
    problems = _label_problems(run)
    if problems:
        return problems
    student = finished(run)  # the form that will run
    _describe(run, student)
    if run.training.teacher is not None:
        run.training.teacher.cache = None  # which is for the run to write
    losses = try_step(run.training)
    parts = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    print(f"trained one step on {run.training.optim.batch_size} clips: {parts}")
    for sentence in rehearse(run, student, run.evaluation or run.train_sets):
        print(sentence)
    print(try_export(run, student))
    return []


def _describe(run: Run, student: Student) -> None:
    """Prints what the recipe builds, with its cost."""
    clips = run.training.clips
    height, width = clips.example().shape[-2:]
    with as_user_error("the student cannot run on a frame", "a network must take one tensor of frames"):
        costs = stateful_gmacs(student, (height, width), key_frame_interval=student.card.key_frame_interval)
    print(f"{len(clips)} training samples; student {student.card.form} of {student.card.network.get('name')}")
    print(f"GMAC per frame at {width}x{height}: " + ", ".join(f"{name} {value:.2f}" for name, value in costs.items()))
    if student.plan is not None:
        print(student.plan)


def _label_problems(run: Run) -> list[str]:
    """What is wrong with labels that decode well, printed."""
    task, recipe = run.task, run.recipe
    used = [*(run.train_sets if recipe.data.labels != "none" else ()), *run.evaluation]
    problems = [problem for dataset in used for problem in task.label_problems(dataset.sequences)]
    labelled = any(task.has_labels(sequence) for dataset in run.evaluation for sequence in dataset.sequences)
    if run.evaluation and not labelled and run.teacher is None:
        problems.append("data.evaluate: has no labels, and there is no teacher to agree with, so nothing can be scored")
    for problem in problems:
        print(problem)
    return problems


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
        num_frames = 0
        for note in dataset.notes:
            print(f"note: {note}")
        for sequence in track(dataset.sequences, f"checking {dataset.name}", total=len(dataset.sequences)):
            own = sequence.problems()
            num_frames += 0 if own else len(sequence)
            notes = sequence.notes() if isinstance(sequence, BoxedSequence | VideoSequence) and not own else []
            for sentence in [*own, *(f"note: {note}" for note in notes)]:
                print(sentence)
            problems += own
        print(f"{dataset.name}: decoded {num_frames} frames of {len(dataset.sequences)} sequences")
    return problems
