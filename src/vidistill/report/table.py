"""A run's numbers as a Markdown table and as one sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "–"


@dataclass(frozen=True)
class Row:
    """A row of the table. keys: where its numbers stand under `part`, one cell holds them all."""

    label: str
    part: str
    keys: Sequence[tuple[str, ...]]
    decimals: int | None = None
    scale: float = 1.0


def _times(label: str, kind: str) -> Row:
    return Row(f"ms, {label}: p50 / p95 / p99", "latency_ms", [(kind, p) for p in ("p50", "p95", "p99")])


ROWS = (
    Row("mIoU", "metrics", [("miou",)], decimals=4),
    Row("AP50", "metrics", [("ap50",)], decimals=4),
    Row("AP@[.5:.95]", "metrics", [("ap",)], decimals=4),
    Row("top-1 accuracy", "metrics", [("top1",)], decimals=4),
    Row("top-5 accuracy", "metrics", [("top5",)], decimals=4),
    Row("mean class accuracy", "metrics", [("mean_class_accuracy",)], decimals=4),
    Row("mean average precision", "metrics", [("map",)], decimals=4),
    Row("PSNR, dB", "metrics", [("psnr",)], decimals=2),
    Row("SSIM", "metrics", [("ssim",)], decimals=4),
    Row("PSNR to the teacher, dB", "metrics", [("agreement_psnr",)], decimals=2),
    Row("temporal consistency: warped difference, levels", "metrics", [("warped_difference",)], decimals=3),
    Row("agreement with the teacher", "metrics", [("agreement",)], decimals=4),
    Row("temporal consistency", "metrics", [("temporal_consistency",)], decimals=4),
    Row("flip rate", "metrics", [("flip_rate",)], decimals=4),
    Row("scored / all", "metrics", [("num_scored",), ("num_frames",)], decimals=0),
    Row("true boxes", "metrics", [("num_boxes",)], decimals=0),
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


# whose part of the teacher's the headline says
COMPARED = {"miou": "mIoU", "ap50": "AP50", "top1": "top-1 accuracy", "map": "mean average precision"}


def results_table(results: dict[str, Any]) -> str:
    """Teacher, student and baselines as a Markdown table; "" where there is nothing to show.

    An unknown number is "–". Costs that are unknown of every network are left out, metrics where none was scored.
    """
    lines = [["", *networks(results)], *([row.label, *cells] for row, cells in table_rows(results))]
    if len(lines) == 1:
        return ""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    first, *others = (max(3, *map(len, column)) for column in zip(*lines, strict=True))
    lines = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table_rows(results: dict[str, Any]) -> list[tuple[Row, list[str]]]:
    """The rows that have something to show, with a cell for each network."""
    rows, found = [], networks(results).values()
    for row in ROWS:
        cells = [[number(scores, row.part, *key) for key in row.keys] for scores in found]
        known = [abs(value) * row.scale for cell in cells for value in cell if value is not None]
        if known:
            decimals = row.decimals
            if decimals is None:  # four digits of the largest
                decimals = min(4, max(1, 3 - math.floor(math.log10(max([*known, 1e-3]) or 1))))
            rows.append((row, [_cell(cell, row.scale, decimals) for cell in cells]))
    return rows


def _cell(values: Sequence[float | None], scale: float, decimals: int) -> str:
    if all(value is None for value in values):
        return UNKNOWN
    return " / ".join(UNKNOWN if value is None else f"{value * scale:.{decimals}f}" for value in values)


def headline(results: dict[str, Any], *, name: str) -> str:
    """One sentence of the numbers that are known: against the teacher where there is one, else on their own."""
    found = networks(results)
    clauses = _compared(found["teacher"], found["student"]) if {"teacher", "student"} <= found.keys() else []
    clauses = clauses or _alone(found.get("student") or found.get("teacher"))
    return f"{name}: {'; '.join(clauses) or 'nothing has been measured yet'}."


def _compared(teacher: dict[str, Any], student: dict[str, Any]) -> list[str]:
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
    ours, theirs = number(student, "metrics", "psnr"), number(teacher, "metrics", "psnr")
    if ours is not None and theirs is not None:
        clauses.append(f"the student's PSNR is {ours:.2f} dB, the teacher's {theirs:.2f}")
    agreement = number(student, "metrics", "agreement")
    more = "" if agreement is None else f" (agreement {agreement:.3f})"
    for metric, name in COMPARED.items():
        if kept := _ratio(number(student, "metrics", metric), number(teacher, "metrics", metric), decimals=3):
            clauses.append(f"the student keeps {kept} of the teacher's {name}{more}")
            return clauses
    if agreement is not None and number(student, "metrics", "num_boxes") is not None:
        clauses.append(f"the student's AP50 with the teacher's confident boxes as the truth is {agreement:.3f}")
    elif agreement is not None:
        scored = "pixels" if number(student, "gmacs", "clip") is None else "videos"
        clauses.append(f"the student agrees with the teacher on {agreement:.3f} of the {scored}")
    return clauses


def _ratio(part: float | None, whole: float | None, *, decimals: int = 2) -> str:
    if part is None or not whole:
        return ""
    return f"{part / whole:.{decimals}f}" if part / whole >= 0.1 else f"{part / whole:.2g}"


def _alone(scores: dict[str, Any] | None) -> list[str]:
    miou, ap50, top1, psnr = (number(scores, "metrics", name) for name in ("miou", "ap50", "top1", "psnr"))
    gmacs = number(scores, "gmacs", "amortised")
    milliseconds, parameters = frame_milliseconds(scores), number(scores, "parameters")
    return [
        *([] if miou is None else [f"mIoU {miou:.3f}"]),
        *([] if ap50 is None else [f"AP50 {ap50:.3f}"]),
        *([] if top1 is None else [f"top-1 accuracy {top1:.3f}"]),
        *([] if psnr is None else [f"PSNR {psnr:.2f} dB"]),
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


def networks(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Teacher, student and baselines of a run's results, those that have any."""
    baselines = results.get("baselines") or {}
    found = {"teacher": results.get("teacher"), "student": results.get("student")}
    found |= {str(name): scores for name, scores in baselines.items() if name not in found}
    return {name: scores for name, scores in found.items() if isinstance(scores, dict) and scores}


def frame_milliseconds(scores: Any) -> float | None:
    """The median time of a frame of a network that takes every frame alone."""
    amortised = number(scores, "latency_ms", "amortised")
    return number(scores, "latency_ms", "key", "p50") if amortised is None else amortised


def same_device(teacher: Any, student: Any) -> bool:
    """Whether both were timed on one device, or on none that is known."""
    devices = {scores.get("device") for scores in (teacher, student) if isinstance(scores, dict)}
    return len(devices - {None}) < 2


def part_of(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under `key`, empty where there is none."""
    part = tree.get(key)
    return part if isinstance(part, dict) else {}
