"""A run's folder → one page that needs nothing else: headline, table, figures, frames, video and protocol."""

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vidistill import report_figures as figures
from vidistill.errors import UserError
from vidistill.report_figures import Picture, networks, number
from vidistill.training_log import read_log

MOST_VIDEO_BYTES = 20_000_000
UNKNOWN = "–"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, yaml.YAMLError, zipfile.BadZipFile, zlib.error)

T = TypeVar("T")


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
    Row("agreement with the teacher", "metrics", [("agreement",)], decimals=4),
    Row("temporal consistency", "metrics", [("temporal_consistency",)], decimals=4),
    Row("flip rate", "metrics", [("flip_rate",)], decimals=4),
    Row("frames: labelled / all", "metrics", [("num_scored",), ("num_frames",)], decimals=0),
    Row("GMAC, key frame", "gmacs", [("key",)]),
    Row("GMAC, delta frame", "gmacs", [("delta",)]),
    Row("GMAC, amortised", "gmacs", [("amortised",)]),
    Row("GMAC, amortised as deployed", "gmacs", [("amortised_deployed",)]),
    _times("key frame", "key"),
    _times("first delta frame", "first_delta"),
    _times("delta frame", "delta"),
    Row("ms, amortised", "latency_ms", [("amortised",)]),
    Row("parameters, millions", "parameters", [()], scale=1e-6),
    Row("peak memory, MB: key / delta frame", "peak_memory_mb", [("key",), ("delta",)]),
)


def results_table(results: dict[str, Any]) -> str:
    """Teacher, student and baselines as a Markdown table; "" where there is nothing to show.

    An unknown number is "–". Costs that are unknown of every network are left out, metrics where none was scored.
    """
    lines = [["", *networks(results)], *([row.label, *cells] for row, cells in _rows(results))]
    if len(lines) == 1:
        return ""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    first, *others = (max(3, *map(len, column)) for column in zip(*lines, strict=True))
    lines = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(results: dict[str, Any]) -> list[tuple[Row, list[str]]]:
    rows, found = [], networks(results).values()
    scored = any(_part(scores, "metrics") for scores in found)
    for row in ROWS:
        cells = [[number(scores, row.part, *key) for key in row.keys] for scores in found]
        known = [abs(value) * row.scale for cell in cells for value in cell if value is not None]
        if known or (scored and row.part == "metrics"):
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
    teacher_ms = figures.frame_milliseconds(teacher) if figures.same_device(teacher, student) else None
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
    agreement = number(student, "metrics", "agreement")
    if kept := _ratio(number(student, "metrics", "miou"), number(teacher, "metrics", "miou"), decimals=3):
        more = "" if agreement is None else f" (agreement {agreement:.3f})"
        clauses.append(f"the student keeps {kept} of the teacher's mIoU{more}")
    elif agreement is not None:
        clauses.append(f"the student agrees with the teacher on {agreement:.3f} of the pixels")
    return clauses


def _ratio(part: float | None, whole: float | None, *, decimals: int = 2) -> str:
    if part is None or not whole:
        return ""
    return f"{part / whole:.{decimals}f}" if part / whole >= 0.1 else f"{part / whole:.2g}"


def _alone(scores: dict[str, Any] | None) -> list[str]:
    miou, gmacs = number(scores, "metrics", "miou"), number(scores, "gmacs", "amortised")
    milliseconds, parameters = figures.frame_milliseconds(scores), number(scores, "parameters")
    return [
        *([] if miou is None else [f"mIoU {miou:.3f}"]),
        *([] if gmacs is None else [f"{gmacs:.3g} GMACs a frame"]),
        *([] if milliseconds is None else [f"{milliseconds:.3g} ms a frame"]),
        *([] if parameters is None else [f"{parameters / 1e6:.3g} million parameters"]),
    ]


@dataclass
class _Run:
    """What a run's folder holds, as far as it can be read; `notes` says what cannot."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recipe = self.read("recipe.yaml", lambda path: _mapping(yaml.safe_load(path.read_text("utf-8")))) or {}
        self.results = self.read("results.json", lambda path: _mapping(json.loads(path.read_text("utf-8")))) or {}
        self.log = self.read("metrics.jsonl", read_log) or []

    def read(self, file: str, parse: Callable[[Path], T]) -> T | None:
        """What `parse` makes of a file; None, with a note, where it cannot, and None where the file is missing."""
        path = self.folder / file
        try:
            return parse(path) if path.is_file() else None
        except UNREADABLE as error:
            self.notes.append(f"{file} cannot be read and is left out ({type(error).__name__}: {error}).")
            return None

    @property
    def name(self) -> str:
        """As results.json has it, else the network's; with the method, unless that is in the name already."""
        roles = [self.results, *(_part(self.recipe, role) for role in ("student", "teacher"))]
        name = str(next((role["name"] for role in roles if role.get("name")), self.folder.resolve().name))
        method = str(_part(self.recipe, "method").get("name") or "supervised").replace("_", " ")
        return name if method == "supervised" or method in name else f"{name} by {method} distillation"


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it holds no keys and values")
    return value


def _part(tree: dict[str, Any], key: str) -> dict[str, Any]:
    part = tree.get(key)
    return part if isinstance(part, dict) else {}


def write_report(folder: Path) -> Path:
    """Writes the run's `report.html` and returns its path; parts that the folder lacks are left out.

    Errors: UserError where there is no such folder, or it cannot be written to.
    """
    from vidistill.checkpoint import atomic_path  # imports torch

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder that a run wrote")
    page = _page(_Run(folder))
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))
    return folder / "report.html"


def _page(run: _Run) -> str:
    sections = [
        _section("Results", _table(run)),
        _section("Figures", _figures(run)),
        _section("Frames", _strip(run)),
        _section("Side by side", _video(run)),
        _section("What was converted", _plan(_part(run.results, "plan"))),
        _section("How it was measured", _protocols(run.results)),
        _section("The run", _settings(run)),
    ]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.notes)
    title, sentence = escape(run.name), escape(_sentence(run))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>' + title + "</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style></head>\n'
        f'<body><main>\n<header><h1>{sentence}</h1><p class="facts">{_facts(run)}</p></header>\n'
        f"{notes}{''.join(sections)}</main></body></html>\n"
    )


def _sentence(run: _Run) -> str:
    if networks(run.results) or not run.log:
        return headline(run.results, name=run.name)
    return f"{run.name}: {len(run.log)} steps of training, nothing has been measured yet."


def _facts(run: _Run) -> str:
    method, environment = _part(run.recipe, "method"), _part(run.results, "environment")
    interval, threads, seed = method.get("key_frame_interval"), environment.get("threads"), run.recipe.get("seed")
    facts = [
        *(part.get("name") for part in (_part(run.recipe, "task"), method)),
        interval and f"key frame every {interval}",
        environment.get("device"),
        threads and f"{threads} threads",
        None if seed is None else f"seed {seed}",
    ]
    return escape(" · ".join(str(fact) for fact in facts if fact))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>\n" if body else ""


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>\n"


def _table(run: _Run) -> str:
    names, body, part = [escape(name) for name in networks(run.results)], "", ""
    if not results_table(run.results):
        return ""
    for row, cells in _rows(run.results):
        rule = ' class="rule"' if row.part != part else ""
        body += f'<tr{rule}><th scope="row">{row.label}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        part = row.part
    head = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in names)
    table = (
        f'<div class="wide"><table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'
    )
    return table + _details("As Markdown", f"<pre>{escape(results_table(run.results))}</pre>")


def _figures(run: _Run) -> str:
    drawn = [
        *figures.quality_against_cost(run.results),
        *figures.quality_by_distance(run.results),
        figures.latencies(run.results),
        figures.loss_curves(run.log),
    ]
    shown = "".join(_figure(picture) for picture in drawn if picture is not None)
    return f'<div class="figures">{shown}</div>' if shown else ""


def _figure(picture: Picture) -> str:
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{picture.dark}">'
        f'<img src="{picture.light}" alt="{escape(picture.alt)}"></picture>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )


def _strip(run: _Run) -> str:
    rows, classes = run.read("strip.npz", figures.strip) or ([], [])
    if not rows:
        return ""
    body = ""
    for row in rows:
        where = "key frame" if row.distance == 0 else f"key frame + {row.distance}"
        where = "frame" if row.distance is None else where
        more = "" if row.agreement is None else f"<small>agreement {row.agreement:.3f}</small>"
        images = "".join(f'<td><img src="{uri}" alt="{name}, {where}"></td>' for name, uri in row.images.items())
        body += f'<tr><th scope="row">{where}{more}</th>{images}</tr>\n'
    head = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in rows[0].images)
    if "difference" in rows[0].images:
        classes = [*classes, ("difference: another class than the teacher's", figures.DIFFERENCE)]
    legend = "".join(f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for name, colour in classes)
    table = f'<table class="strip"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>\n<ul class="legend">{legend}</ul>'


def _video(run: _Run) -> str:
    path = run.folder / "side_by_side.mp4"
    if not path.is_file():
        return ""
    if path.stat().st_size > MOST_VIDEO_BYTES:
        return f"<p>The video is too large to be embedded; it is <code>{path.name}</code> in the run's folder.</p>"
    source = run.read(path.name, lambda path: figures.data_uri(path.read_bytes(), "video/mp4"))
    label = 'aria-label="Teacher and student side by side"'
    return (
        f'<video controls muted loop playsinline preload="metadata" {label} src="{source}"></video>' if source else ""
    )


def _plan(plan: dict[str, Any]) -> str:
    converted, layers, share = (number(plan, key) for key in ("converted", "layers", "share"))
    left: dict[str, list[str]] = {}
    for layer in filter(None, plan.get("left") or []):
        left.setdefault(str(layer.get("reason") or "no reason given"), []).append(str(layer.get("path")))
    body = ""
    if converted is not None and layers is not None:
        share_text = "" if share is None else f", {share:.1%} of their multiply-accumulates"
        body = f"<p>{converted:.0f} of {layers:.0f} layers were converted{share_text}.</p>\n"
    if left:
        items = "".join(
            f"<dt>{escape(reason)}</dt><dd>{', '.join(f'<code>{escape(path)}</code>' for path in paths)}</dd>\n"
            for reason, paths in left.items()
        )
        body += _details(f"What was left as it is: {sum(map(len, left.values()))}, and why", f"<dl>{items}</dl>")
    return body


def _protocols(results: dict[str, Any]) -> str:
    said: dict[str, list[str]] = {}
    for name, scores in networks(results).items():
        size = "×".join(map(str, scores.get("size") or []))
        timed = ", ".join(str(fact) for fact in (scores.get("device"), scores.get("precision"), size) if fact)
        for sentence in (_part(scores, "metrics").get("protocol"), timed and f"Timed on {timed}."):
            if sentence:
                said.setdefault(str(sentence), []).append(name)
    if not said:
        return ""
    items = [f"<b>{escape(', '.join(names))}:</b> {escape(sentence)}" for sentence, names in said.items()]
    gmacs = [[number(scores, "gmacs", key) for key in ("delta", "key")] for scores in networks(results).values()]
    if any(delta not in (None, key) for delta, key in gmacs):
        items.append(GMAC)
    return "".join(f"<p>{item}</p>\n" for item in items)


def _settings(run: _Run) -> str:
    parts = {"Recipe": run.recipe, "Environment": run.results.get("environment"), "Run": run.results.get("run")}
    texts = {title: yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for title, part in parts.items() if part}
    return "".join(_details(title, f"<pre>{escape(text)}</pre>") for title, text in texts.items())


GMAC = (
    "<b>GMAC</b> amortised is (key + (K − 1) · delta) / K with K the key-frame interval; "
    "as deployed it also counts the students' run on the key frame."
)
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { --ink: #1c2128; --soft: #59626e; --line: #dde1e7; --page: #fff; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe4ea; --soft: #98a2ae; --line: #343b46; --page: #14171c; --card: #1b1f26; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--page); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.4rem; line-height: 1.4; font-weight: 600; margin: 0; max-width: 46rem; text-wrap: pretty; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.75rem 0 0.75rem; }
p { max-width: 46rem; } .facts, figcaption, small, .note { color: var(--soft); font-size: 0.875rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
.results { font-size: 0.9rem; } .results th, .results td { padding: 0.3rem 0.9rem; white-space: nowrap; }
.results td, .results thead th { text-align: right; } th[scope=row] { text-align: left; font-weight: 400; }
.results th[scope=row] { padding-left: 0.4rem; position: sticky; left: 0; background: var(--page); }
@media (max-width: 40rem) { .results th[scope=row] { white-space: normal; min-width: 8.5rem; } }
.rule > * { border-top: 1px solid var(--line); }
details { margin: 0.75rem 0; } summary { cursor: pointer; color: var(--soft); } dd { margin: 0 0 0.75rem; }
pre { overflow-x: auto; background: var(--card); padding: 0.9rem 1.1rem; border-radius: 6px; }
pre, code { font: 0.8rem/1.5 ui-monospace, Menlo, Consolas, monospace; } code { overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.75rem 2rem; }
figure { margin: 0; } img, video { display: block; width: 100%; height: auto; } video { border-radius: 6px; }
.strip { width: 100%; min-width: 38rem; table-layout: fixed; font-size: 0.875rem; } .strip small { display: block; }
.strip td, .strip th { padding: 0.2rem; vertical-align: middle; } .strip thead > tr > :first-child { width: 8.5rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; padding: 0; list-style: none; font-size: 0.875rem; }
.legend i { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 2px; }
"""
