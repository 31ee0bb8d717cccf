"""One recipe at several views of its clips, with and without its teacher: how a user chooses a resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from vidistill.config import Values, whole_number
from vidistill.errors import UserError
from vidistill.files import atomic_path, json_text
from vidistill.methods.supervised import Supervised
from vidistill.report.figures import BASELINES, STUDENT, TEACHER, Picture, picture
from vidistill.report.page import POLICY, STYLE
from vidistill.report.table import number
from vidistill.runs.build import Run, build
from vidistill.runs.recipe import Recipe, ViewSettings, load_recipe
from vidistill.runs.run import execute, refuse_nothing_to_learn, saved_student
from vidistill.runtimes.measure import noise_frames, profile_students
from vidistill.students.student import Student

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TAUGHT, ALONE, TAUGHT_BY = "with teacher", "alone", "teacher"
COSTS = {"amortised": "milliseconds a frame of a stream", "clip": "GMAC a clip"}


@dataclass(frozen=True)
class Point:
    """What one run of a sweep measured. series: "with teacher", "alone" or "teacher".

    milliseconds: a frame of a stream, of all networks measured side by side when the last has been trained.
    """

    view: str
    series: str
    quality: float
    gmacs: float
    milliseconds: float
    device: str


def parse_view(text: str) -> ViewSettings:
    """A view from `size`, or from `size:detail` for frames reduced to `detail` and enlarged to `size`."""
    size, colon, detail = text.partition(":")
    if not whole_number(size) or (colon and not whole_number(detail)):
        raise UserError(f"--views {text}: give a size in pixels as in 112, or size:detail as in 224:112")
    return ViewSettings(size=whole_number(size), detail=whole_number(detail))


def run_sweep(path: Path, views: Sequence[str], assignments: Sequence[str]) -> tuple[list[Point], Path]:
    """Trains and scores the recipe's student at every view, with its teacher, if it has one, and alone.

    Where the recipe leaves given labels out, no student can learn alone: that series is left out, which is printed.
    Every run has a folder in the recipe's `out`, and one that is complete is only scored again; `sweep.json` and
    `sweep.html` lie beside them. Returns the points and that page.

    Raises:
        UserError: as a run does, and where the networks of the recipe's task do not see clips.
    """
    whole = load_recipe(path, assignments)
    if not whole.task.sees_clips:
        raise UserError(
            f"{path}: a sweep is over the views of a network of clips, and those of {whole.task.name} see none; give a "
            "recipe of another task"
        )
    recipes = _recipes(whole, views)
    if whole.data.labels != "given":
        print(f"data.labels is {whole.data.labels}, so a student alone has nothing to learn from: it is left out")
    measured: dict[tuple[str, str], tuple[Run, Values]] = {}
    models: dict[str, Student] = {}
    for (view, series), recipe in recipes.items():
        run = build(recipe)
        results = execute(run)
        assert results is not None
        measured[view, series] = run, results["student"]
        models.setdefault(view, saved_student(run))  # taught or alone, it costs the same
        if run.teacher is not None:
            measured.setdefault((TAUGHT_BY, TAUGHT_BY), (run, results["teacher"]))
            models.setdefault(TAUGHT_BY, run.teacher)
    first = next(iter(models.values()))
    pixels = noise_frames(1, (1, 1)).to(first.device)  # networks of clips bring frames of their own
    costs = profile_students(models, pixels, interval=first.card.key_frame_interval)
    points = [_point(run, scores, costs[view], view, series) for (view, series), (run, scores) in measured.items()]
    with atomic_path(whole.out / "sweep.json") as temporary:
        temporary.write_text(json_text([vars(point) for point in points], indent=2))
    with atomic_path(whole.out / "sweep.html") as temporary:
        temporary.write_text(_page(points, path.stem), encoding="utf-8")
    return points, whole.out / "sweep.html"


def _recipes(whole: Recipe, views: Sequence[str]) -> dict[tuple[str, str], Recipe]:
    """Every run's recipe by its view and series. All are built once, so that mistakes come before any training."""
    changes = {view: parse_view(view) for view in views}
    recipes: dict[tuple[str, str], Recipe] = {}
    normalisation = whole.normalisation
    for view, change in changes.items():
        for series in _series(whole):
            recipe = whole.model_copy(deep=True)
            given = recipe.student.view.model_dump(exclude_none=True) | change.model_dump()
            recipe.student.view = ViewSettings(**given)
            recipe.normalisation = normalisation
            recipe.out = whole.out / f"{view.replace(':', '_')}_{series.replace(' ', '_')}"
            if series == ALONE:
                shared = {option.name for option in fields(Supervised)} & vars(whole.method).keys()
                own = {name: getattr(whole.method, name) for name in shared}  # what the method has of norms and rates
                recipe.teacher, recipe.method = None, Supervised(**own)
            run = build(recipe)
            refuse_nothing_to_learn(run)
            if not run.evaluation or not run.evaluation[0].num_classes:
                raise UserError("a sweep needs labelled videos to score on; give data.evaluate")
            recipes[view, series] = recipe
            normalisation = run.recipe.normalisation  # which a student alone must share with a taught one
    return recipes


def _series(whole: Recipe) -> Sequence[str]:
    """Those that have something to learn from; alone, it is given labels. A recipe without either is refused."""
    if whole.teacher is None:
        return [ALONE]
    return [TAUGHT, ALONE] if whole.data.labels == "given" else [TAUGHT]


def _point(run: Run, scores: Values, costs: Values, view: str, series: str) -> Point:
    """The quality is the first metric that is known of those that can stand in a headline."""
    known = [number(scores, "metrics", m.key) for m in run.task.metrics if m.name and not m.is_agreement]
    quality = next(value for value in known if value is not None)
    gmacs, milliseconds = costs["gmacs"]["clip"], costs["latency_ms"]["amortised"]
    return Point(view, series, quality, gmacs, milliseconds, str(costs["device"]))


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = ["| view | | accuracy | GMAC a clip | ms a frame |", "|---|---|---|---|---|"]
    lines += [
        f"| {point.view} | {point.series} | {point.quality:.4f} | {point.gmacs:.3g} | {point.milliseconds:.3g} |"
        for point in points
    ]
    return "\n".join(lines) + "\n"


def _page(points: Sequence[Point], name: str) -> str:
    pictures = [_figure(points, cost, label) for cost, label in COSTS.items()]
    shown = "".join(
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{p.dark}">'
        f'<img src="{p.light}" alt="{escape(p.alt)}"></picture><figcaption>{escape(p.caption)}</figcaption></figure>'
        for p in pictures
    )
    title = escape(f"{name}: accuracy against cost, view by view")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style></head>\n'
        f'<body><main><header><h1>{title}</h1><p class="facts">{escape(points[0].device)}</p></header>\n'
        f'<div class="figures">{shown}</div><pre>{escape(table(points))}</pre></main></body></html>\n'
    )


def _figure(points: Sequence[Point], cost: str, label: str) -> Picture:
    places = [(point, point.milliseconds if cost == "amortised" else point.gmacs) for point in points]
    words = "; ".join(f"{p.view} {p.series} {p.quality:.3f} at {x:.3g}" for p, x in places)
    caption = f"Accuracy against {label}; up and left is better"
    return picture(partial(draw_points, places=places, label=label), f"{caption}: {words}", caption)


def draw_points(axes: "Axes", *, places: list[tuple[Point, float]], label: str) -> None:
    """Accuracy over each point's cost, of which `label` says the unit: a line a series, clips enlarged apart."""
    colours = {TAUGHT: STUDENT, TAUGHT_BY: TEACHER}
    others = cycle(BASELINES)
    for series in dict.fromkeys(point.series for point, _ in places):
        chosen = sorted(((x, p.quality, p.view) for p, x in places if p.series == series), key=lambda c: c[0])
        colour = colours.get(series) or next(others)
        sizes, enlarged = ([c for c in chosen if (":" in c[2]) == is_enlarged] for is_enlarged in (False, True))
        if sizes:
            axes.plot([x for x, _, _ in sizes], [y for _, y, _ in sizes], color=colour, marker="o", label=series)
        if enlarged:  # no step of the way from size to size
            name = f"{series}, enlarged"
            where = [x for x, _, _ in enlarged], [y for _, y, _ in enlarged]
            axes.plot(*where, "D", color=colour, markersize=11, fillstyle="none", label=name)
        for x, y, views in _joined(chosen):
            axes.annotate(views, (x, y), (0, 9), textcoords="offset points", ha="center", color=colour, fontsize=8)
    axes.margins(0.12)
    axes.set(xlabel=label, ylabel="accuracy")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")


def _joined(chosen: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Points (x, y, name) with one name where several lie on one another, to a twentieth of the widest x."""
    width = max(x for x, _, _ in chosen)
    named: dict[tuple[int, float], tuple[float, float, str]] = {}
    for x, y, name in chosen:
        place = (round(20 * x / width), y)
        named[place] = (x, y, f"{named[place][2]}, {name}" if place in named else name)
    return list(named.values())
