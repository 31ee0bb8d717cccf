"""A run's numbers as a Markdown table and as one sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vidistill.config import Values

UNKNOWN = "–"


@dataclass(frozen=True)
class Metric:
    """A quality that a task measures, as data: how tables, figures, the page's headline and the command line show it.

    Args:
        key: its name in `metrics` of `results.json`. A list with a value for each distance to the key frame may stand
            under `<key>_by_distance`.
        label: in tables.
        decimals: in tables and sentences.
        name: short, for figures and sentences; "" keeps the metric out of both.
        unit: of its values, "" for none.
        better: which direction is better; "" for a count.
        sentence: for the headline, with `{student}`, `{teacher}` and `{share}` (student / teacher) as values. The first
            metric of a task whose sentence can be filled makes the headline.
        is_agreement: whether it compares the student with the teacher. Such a metric is the headline only where no
            other one is, and the teacher itself counts as 1.
    """

    key: str
    label: str
    decimals: int = 4
    name: str = ""
    unit: str = ""
    better: Literal["higher", "lower", ""] = "higher"
    sentence: str = ""
    is_agreement: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the table. keys: where its numbers stand under `part`; one cell holds them all."""

    label: str
    part: str
    keys: Sequence[tuple[str, ...]]
    decimals: int | None = None
    scale: float = 1.0


def _times(label: str, kind: str) -> Row:
    return Row(f"ms, {label}: p50 / p95 / p99", "latency_ms", [(kind, p) for p in ("p50", "p95", "p99")])


SCORED = Row("scored / all", "metrics", [("num_scored",), ("num_frames",)], decimals=0)
COSTS = (
    Row("GMAC, clip", "gmacs", [("clip",)]),
    Row("GMAC, frame of a clip", "gmacs", [("frame",)]),
    Row("GMAC, key frame", "gmacs", [("key",)]),
    Row("GMAC, delta frame", "gmacs", [("delta",)]),
    Row("GMAC, amortised", "gmacs", [("amortised",)]),
    Row("GMAC, amortised as deployed", "gmacs", [("amortised_deployed",)]),
    _times("clip", "clip"),
    _times("key frame", "key"),
    _times("first delta frame", "first_delta"),
    _times("delta frame", "delta"),
    Row("ms, amortised", "latency_ms", [("amortised",)]),
    Row("frames a second", "frames_per_second", [()]),
    Row("parameters, millions", "parameters", [()], scale=1e-6),
    Row("peak memory, MB: key / delta frame", "peak_memory_mb", [("key",), ("delta",)]),
    Row("peak memory, MB: clip", "peak_memory_mb", [("clip",)]),
)


def rows_of(metrics: Sequence[Metric]) -> list[Row]:
    """The table's rows: qualities, then how much was scored, then costs."""
    qualities = [Row(metric.label, "metrics", [(metric.key,)], metric.decimals) for metric in metrics if metric.better]
    counts = [Row(metric.label, "metrics", [(metric.key,)], metric.decimals) for metric in metrics if not metric.better]
    return [*qualities, SCORED, *counts, *COSTS]


def results_table(results: Values, metrics: Sequence[Metric] = ()) -> str:
    """Teacher, student and baselines as a Markdown table; "" where nothing is known.

    metrics: the task's. An unknown number is "–". Costs that are unknown for every network are left out, and so are
    metrics that were scored for none.
    """
    lines = [["", *networks(results)], *([row.label, *cells] for row, cells in table_rows(results, metrics))]
    if len(lines) == 1:
        return ""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    first, *others = (max(3, *map(len, column)) for column in zip(*lines, strict=True))
    lines = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table_rows(results: Values, metrics: Sequence[Metric]) -> list[tuple[Row, list[str]]]:
    """The rows of which at least one number is known, with a cell for each network."""
    rows, columns = [], networks(results).values()
    for row in rows_of(metrics):
        cells = [[number(scores, row.part, *key) for key in row.keys] for scores in columns]
        known = [abs(value) * row.scale for cell in cells for value in cell if value is not None]
        if not known:
            continue
        decimals = row.decimals
        if decimals is None:  # four digits of the largest
            decimals = min(4, max(1, 3 - math.floor(math.log10(max([*known, 1e-3]) or 1))))
        texts = [[UNKNOWN if v is None else f"{v * row.scale:.{decimals}f}" for v in cell] for cell in cells]
        rows.append((row, [UNKNOWN if set(text) == {UNKNOWN} else " / ".join(text) for text in texts]))
    return rows


def headline(results: Values, metrics: Sequence[Metric], *, name: str) -> str:
    """One sentence of the numbers that are known: against the teacher where one was measured, else on their own."""
    columns = networks(results)
    clauses: list[str] = []
    if {"teacher", "student"} <= columns.keys():
        clauses = _costs_compared(columns["teacher"], columns["student"])
        clauses += _quality_compared(columns["teacher"], columns["student"], metrics)
    clauses = clauses or _alone(columns.get("student") or columns.get("teacher"), metrics)
    return f"{name}: {'; '.join(clauses) or 'nothing has been measured yet'}."


def _costs_compared(teacher: Values, student: Values) -> list[str]:
    clauses, amortised = [], []
    teacher_ms = frame_milliseconds(teacher) if same_device(teacher, student) else None
    if delta := _ratio(number(student, "latency_ms", "delta", "p50"), teacher_ms):
        clauses.append(f"a delta frame takes {delta} of the teacher's time")
    if time := _ratio(number(student, "latency_ms", "amortised"), teacher_ms):
        amortised.append(f"{time} of the teacher's time")
    if gmacs := _ratio(number(student, "gmacs", "amortised"), number(teacher, "gmacs", "amortised")):
        amortised.append(f"{gmacs} of the teacher's GMACs" if not amortised else f"{gmacs} of the GMACs")
    if amortised:
        key, delta_gmacs = number(student, "gmacs", "key"), number(student, "gmacs", "delta")
        frame = "amortised, a frame" if delta or delta_gmacs not in (None, key) else "a frame"
        clauses.append(f"{frame} takes {' and '.join(amortised)}")
    return clauses


def _quality_compared(teacher: Values, student: Values, metrics: Sequence[Metric]) -> list[str]:
    """The first sentence that can be filled, those of agreement last; agreement follows a share in brackets."""
    with_sentence = sorted((metric for metric in metrics if metric.sentence), key=lambda metric: metric.is_agreement)
    agreements = (number(student, "metrics", metric.key) for metric in metrics if metric.is_agreement)
    agreement = next((value for value in agreements if value is not None), None)
    for metric in with_sentence:
        ours, theirs = (number(scores, "metrics", metric.key) for scores in (student, teacher))
        share = _ratio(ours, theirs, decimals=3)
        if ours is None or (not metric.is_agreement and (theirs is None or not share)):
            continue
        clause = metric.sentence.format(student=ours, teacher=theirs, share=share)
        has_share = "{share}" in metric.sentence and agreement is not None
        return [f"{clause} (agreement {agreement:.3f})" if has_share else clause]
    return []


def _ratio(part: float | None, whole: float | None, *, decimals: int = 2) -> str:
    if part is None or not whole:
        return ""
    return f"{part / whole:.{decimals}f}" if part / whole >= 0.1 else f"{part / whole:.2g}"


def _alone(scores: Values | None, metrics: Sequence[Metric]) -> list[str]:
    """Quality and cost of one network, without a comparison."""
    named = [metric for metric in metrics if metric.name and not metric.is_agreement]
    values = [(metric, number(scores, "metrics", metric.key)) for metric in named]
    known = [f"{m.name} {v:.{min(m.decimals, 3)}f} {m.unit}".rstrip() for m, v in values if v is not None]
    gmacs, milliseconds = number(scores, "gmacs", "amortised"), frame_milliseconds(scores)
    parameters = number(scores, "parameters")
    return [
        *known[:1],
        *([] if gmacs is None else [f"{gmacs:.3g} GMACs a frame"]),
        *([] if milliseconds is None else [f"{milliseconds:.3g} ms a frame"]),
        *([] if parameters is None else [f"{parameters / 1e6:.3g} million parameters"]),
    ]


def number(tree: Any, *keys: str) -> float | None:
    """The finite number under nested keys, None where any of them is missing or null."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    known = isinstance(tree, int | float) and not isinstance(tree, bool) and math.isfinite(tree)
    return float(tree) if known else None


def networks(results: Values) -> dict[str, Values]:
    """Teacher, student and baselines of a run's results, those that have any."""
    baselines = results.get("baselines") or {}
    columns = {"teacher": results.get("teacher"), "student": results.get("student")}
    columns |= {str(name): scores for name, scores in baselines.items() if name not in columns}
    return {name: scores for name, scores in columns.items() if isinstance(scores, dict) and scores}


def frame_milliseconds(scores: Any) -> float | None:
    """The median time of a frame of a network that takes every frame alone."""
    amortised = number(scores, "latency_ms", "amortised")
    return number(scores, "latency_ms", "key", "p50") if amortised is None else amortised


def same_device(teacher: Any, student: Any) -> bool:
    """Whether both were timed on one device, or on none that is known."""
    devices = {scores.get("device") for scores in (teacher, student) if isinstance(scores, dict)}
    return len(devices - {None}) < 2


def part_of(tree: Values, key: str) -> Values:
    """The mapping under `key`, empty where there is none."""
    part = tree.get(key)
    return part if isinstance(part, dict) else {}
