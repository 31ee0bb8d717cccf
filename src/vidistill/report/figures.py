"""The figures of a report as embedded pictures: each drawn once, then coloured for light and for dark pages."""

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.report.table import Metric, frame_milliseconds, networks, number, same_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID, TEACHER, STUDENT = "#3b424c", "#dde1e7", "#6e7781", "#1f6fb2"
BASELINES = ("#c2570c", "#2c8053", "#8250a8", "#a8456c", "#7d6608")
DARK = {
    INK: "#c6cdd6", GRID: "#343b46", TEACHER: "#98a2ae", STUDENT: "#62aeea",
    **dict(zip(BASELINES, ("#f08c46", "#5cb98a", "#b58ad8", "#e07fa6", "#c9ae3f"), strict=True)),
}  # fmt: skip
STYLE: Any = {
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": GRID,
    "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 10, "legend.frameon": False, "text.parse_math": False, "svg.hashsalt": "vidistill",
}  # fmt: skip
NO_LOSSES = ("step", "learning_rate", "samples_per_second", "cache_hits")  # what every run logs beside its losses
CONTROLS = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOST_POINTS = 600  # of a training curve
PLACES = ((9, 0, "left"), (-9, 0, "right"), (0, 13, "center"), (0, -13, "center"), (9, 13, "left"), (9, -13, "left"))


@dataclass(frozen=True)
class Picture:
    """An image for light and dark pages as data URIs, with what it shows in words."""

    light: str
    dark: str
    alt: str
    caption: str


def quality_against_cost(results: Values, metrics: Sequence[Metric]) -> list[Picture]:
    """A scatter for each cost that is known for two networks or more: time on the student's device, then GMAC.

    The quality is the first of the task's that is known for two networks; else the agreement with the teacher.
    """
    named = sorted((metric for metric in metrics if metric.name), key=lambda metric: metric.is_agreement)
    if not named:
        return []
    columns = networks(results)
    metric = next((m for m in named if len(_known(results, "metrics", m.key)) > 1), named[-1])
    scores = _known(results, "metrics", metric.key)
    if metric.is_agreement and "teacher" in columns:
        scores = {"teacher": 1.0} | scores
    costs = {"latency_ms": "milliseconds a frame, amortised", "gmacs": "GMAC a frame, amortised"}
    pictures = []
    for key, unit in costs.items():
        cost = _known(results, key, "amortised")
        if key == "latency_ms":
            cost = {name: x for name, x in cost.items() if same_device(columns[name], columns.get("student"))}
        points = {name: (cost[name], score) for name, score in scores.items() if name in cost}
        if len(points) > 1:
            side = "up" if metric.better == "higher" else "down"
            caption = f"{_label(metric)} against {unit}; {side} and left is better"
            alt = caption + ": " + "; ".join(f"{name} {y:.3f} at {x:.4g}" for name, (x, y) in points.items())
            draw = partial(_scatter, colours=_colours(results), xlabel=unit, ylabel=_label(metric))
            pictures.append(picture(partial(draw, points=points), alt, caption))
    return pictures


def _label(metric: Metric) -> str:
    """For an axis: the metric's name with its unit; a name in small letters gets a capital."""
    name = metric.name.capitalize() if metric.name.islower() else metric.name
    return f"{name}, {metric.unit}" if metric.unit else name


def _known(results: Values, *keys: str) -> dict[str, float]:
    values = {name: number(scores, *keys) for name, scores in networks(results).items()}
    return {name: value for name, value in values.items() if value is not None}


def _colours(results: Values) -> dict[str, str]:
    baselines = [name for name in networks(results) if name not in ("teacher", "student")]
    return {"teacher": TEACHER, "student": STUDENT} | dict(zip(baselines, cycle(BASELINES), strict=False))


def _scatter(
    axes: "Axes", *, points: dict[str, tuple[float, float]], colours: dict[str, str], xlabel: str, ylabel: str
) -> None:
    for name, (x, y) in points.items():
        marker = {"teacher": "s", "student": "o"}.get(name, "D")
        axes.scatter([x], [y], s=70 if name == "student" else 45, color=colours[name], marker=marker, zorder=3)
    low, high = min(y for _, y in points.values()), max(y for _, y in points.values())
    margin = max(0.18 * (high - low), 0.005)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(low - margin, high + margin))
    axes.set_xlim(0, 1.18 * max(x for x, _ in points.values()) or 1)
    _name_points(axes, points, colours)


def _name_points(axes: "Axes", points: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Writes each name beside its point, on the first side where it neither leaves the axes nor covers another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(axes.figure).get_renderer()  # type: ignore[arg-type]
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    centres = axes.transData.transform(list(points.values()))
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in centres]
    for name, point in points.items():
        for dx, dy, side in PLACES:
            text = axes.annotate(name, point, (dx, dy), textcoords="offset points", ha=side, va="center")
            text.set_color(colours[name])
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if (inside and not box.count_overlaps(taken)) or (dx, dy, side) == PLACES[-1]:
                break
            text.remove()
        taken.append(box)


def quality_by_distance(results: Values, metrics: Sequence[Metric]) -> list[Picture]:
    """Lines over the distance to the key frame, one picture for each quality that is known at two or more."""
    pictures = []
    for metric in (metric for metric in metrics if metric.name):
        lines = {}
        for name, scores in networks(results).items():
            values = (scores.get("metrics") or {}).get(f"{metric.key}_by_distance") or []
            curve = [_nan(value) for value in values]
            if name != "teacher" and len(curve) > 1 and not np.isnan(curve).all():
                lines[name] = curve
        level = number(results, "teacher", "metrics", metric.key)
        if lines:
            words = "; ".join(f"{name} {_span(curve)}" for name, curve in lines.items())
            caption = f"{_label(metric)} by distance to the key frame"
            alt = f"{caption}: {words}" + (f"; teacher {level:.3f}" if level else "")
            draw = partial(_lines, lines=lines, colours=_colours(results), level=level, ylabel=_label(metric))
            pictures.append(picture(draw, alt, caption))
    return pictures


def _nan(value: Any) -> float:
    known = number({"value": value}, "value")
    return math.nan if known is None else known


def _span(curve: Sequence[float]) -> str:
    known = [value for value in curve if not math.isnan(value)]
    return f"from {known[0]:.3f} to {known[-1]:.3f}"


def _lines(
    axes: "Axes", *, lines: dict[str, list[float]], colours: dict[str, str], level: float | None, ylabel: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    if level is not None:
        axes.axhline(level, color=TEACHER, linestyle="--", label="teacher")
    for name, curve in lines.items():
        label = name.lstrip("_")  # matplotlib keeps names with a leading underscore out of legends
        axes.plot(range(len(curve)), curve, color=colours[name], marker="o", markersize=4, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="frames since the key frame", ylabel=ylabel)
    axes.legend()


def latencies(results: Values) -> Picture | None:
    """The student's bars by kind of frame, with the teacher's frame as a line where both ran on one device.

    None for a student without delta frames.
    """
    times = networks(results).get("student", {}).get("latency_ms")
    kinds = {"key": "key frame", "first_delta": "first delta frame", "delta": "delta frame"}
    bars = {label: [number(times, key, p) for p in ("p50", "p95", "p99")] for key, label in kinds.items()}
    bars["amortised"] = [number(times, "amortised"), None, None]
    shown = {label: values for label, values in bars.items() if values[0] is not None}
    if not {"first delta frame", "delta frame"} & shown.keys():
        return None
    teacher, student = results.get("teacher"), results.get("student")
    level = frame_milliseconds(teacher) if same_device(teacher, student) else None
    words = "; ".join(f"{label} {values[0]:.4g}" for label, values in shown.items())
    alt = f"The student's milliseconds a frame: {words}" + (f"; teacher {level:.4g}" if level is not None else "")
    caption = "The student's time a frame; bars are p50 (amortised: the mean), ticks p95 and p99"
    return picture(partial(_bars, bars=shown, teacher=level), alt, caption)


def _bars(axes: "Axes", bars: dict[str, list[float | None]], teacher: float | None) -> None:
    for y, (label, (median, *whiskers)) in enumerate(bars.items()):
        assert median is not None
        axes.barh([y], [median], height=0.55, color=STUDENT, alpha=0.45 if label == "amortised" else 0.85)
        ends = [value for value in whiskers if value is not None]
        if ends:
            axes.plot([median, max(ends)], [y, y], color=INK, linewidth=1)
            axes.plot(ends, [y] * len(ends), color=INK, marker="|", markersize=9, linestyle="none")
        axes.annotate(f"{median:.4g}", (max([median, *ends]), y), (6, 0), textcoords="offset points", va="center")
    if teacher is not None:
        axes.axvline(teacher, color=TEACHER, linestyle="--", label=f"teacher {teacher:.4g}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.set_yticks(range(len(bars)), list(bars))
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="milliseconds", ylim=(len(bars) - 0.5, -0.5))
    axes.set_xlim(0, 1.12 * axes.get_xlim()[1])


def loss_curves(log: list[dict[str, float]], observed: Sequence[str] = ()) -> Picture | None:
    """Every loss that was logged, raw and smoothed, on a log axis; None for fewer than two steps.

    observed: patterns of what the method logs beside its losses.
    """
    logged_names = dict.fromkeys(name for line in log for name in line)
    names = [n for n in logged_names if not any(fnmatchcase(n, pattern) for pattern in (*NO_LOSSES, *observed))]
    curves = logged(log, sorted(names, key="loss".__ne__))
    if not curves:
        return None
    if len(curves) == 2 and "loss" in curves and len({curve.tobytes() for curve in curves.values()}) == 1:
        del curves["loss"]  # the one loss there is
    alt = f"Losses over {len(log)} training steps, smoothed: {curve_words(curves)}"
    caption = "Losses in training, smoothed; single steps faint"
    return picture(partial(draw_curves, steps=steps_of(log), curves=curves, ylabel="loss"), alt, caption)


def logged(log: list[dict[str, float]], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """What was logged by these names, a value a step, NaN where it is no positive one; only what has two or more."""
    curves = {name: np.array([_nan(line.get(name)) for line in log]) for name in names}
    curves = {name: np.where(curve > 0, curve, math.nan) for name, curve in curves.items()}
    return {name: curve for name, curve in curves.items() if (curve > 0).sum() > 1}


def steps_of(log: list[dict[str, float]]) -> NDArray[np.float64]:
    """The step of each line."""
    return np.array([_nan(line.get("step")) for line in log])


def curve_words(curves: dict[str, NDArray[np.float64]]) -> str:
    """Where each curve, smoothed, begins and ends."""
    ends = {name: _smooth(curve)[np.isfinite(_smooth(curve))][[0, -1]] for name, curve in curves.items()}
    return "; ".join(f"{name} from {first:.3g} to {last:.3g}" for name, (first, last) in ends.items())


def _smooth(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean over a fiftieth of the curve that leaves out what is missing."""
    window = np.ones(2 * (len(curve) // 100) + 1)
    known = np.isfinite(curve)
    weight = np.convolve(known, window, "same")
    total = np.convolve(np.where(known, curve, 0), window, "same")
    return np.where(weight > 0, total / np.maximum(weight, 1), math.nan)


def draw_curves(
    axes: "Axes", *, steps: NDArray[np.float64], curves: dict[str, NDArray[np.float64]], ylabel: str
) -> None:
    """Curves over the training's steps, raw and smoothed, on a log axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    colours = dict(zip(curves, cycle((STUDENT, *BASELINES)), strict=False))
    stride = -(-len(steps) // MOST_POINTS)
    for name, curve in curves.items():
        axes.plot(steps[::stride], curve[::stride], color=colours[name], alpha=0.22, linewidth=0.7)
        label = name.lstrip("_")
        axes.plot(steps[::stride], _smooth(curve)[::stride], color=colours[name], linewidth=1.6, label=label)
    axes.set(yscale="log", xlabel="step", ylabel=ylabel)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def picture(draw: Callable[["Axes"], None], alt: str, caption: str) -> Picture:
    """Draws without pyplot, so that no global figure is left behind."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure: Figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = CONTROLS.sub(" ", buffer.getvalue())  # which XML does not allow, and a class's name may hold
    dark = re.sub("|".join(DARK), lambda colour: DARK[colour.group()], svg)
    return Picture(_svg(svg), _svg(dark), alt, caption)


def _svg(text: str) -> str:
    return data_uri(text.encode(), "image/svg+xml")


def data_uri(contents: bytes, kind: str) -> str:
    """The contents as an address of themselves."""
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"


def image_uri(pixels: NDArray[np.uint8], form: str) -> str:
    """The image as an address of itself, at most 640 pixels wide and high."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.thumbnail((640, 640), Image.Resampling.LANCZOS if form == "jpeg" else Image.Resampling.NEAREST)
    image.save(buffer, form, **({"quality": 85} if form == "jpeg" else {"optimize": True}))
    return data_uri(buffer.getvalue(), f"image/{form}")
