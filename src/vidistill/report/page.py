"""A run's folder → one page that needs nothing else: headline, table, figures, frames, video and protocol.

The page knows neither tasks nor methods: what they add, they declare as `PageParts`.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vidistill.config import Values
from vidistill.errors import UserError
from vidistill.report import figures
from vidistill.report.figures import Picture
from vidistill.report.table import Metric, headline, networks, number, part_of, results_table, table_rows
from vidistill.training_log import read_log

MOST_VIDEO_BYTES = 20_000_000
UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, yaml.YAMLError, zipfile.BadZipFile, zlib.error)

T = TypeVar("T")


@dataclass
class RunFolder:
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
        roles = [self.results, *(part_of(self.recipe, role) for role in ("student", "teacher"))]
        name = str(next((role["name"] for role in roles if role.get("name")), self.folder.resolve().name))
        method = str(part_of(self.recipe, "method").get("name") or "").replace("_", " ")
        is_taught = method and part_of(self.recipe, "teacher")
        return f"{name} by {method} distillation" if is_taught and method not in name else name


def _mapping(value: Any) -> Values:
    if not isinstance(value, dict):
        raise ValueError("it holds no keys and values")
    return value


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, and its body as HTML."""

    title: str
    body: str


@dataclass(frozen=True)
class StripRow:
    """A row of pictures. images: a data URI for each column; note: a few words below the row's title."""

    title: str
    images: dict[str, str]
    note: str = ""


@dataclass(frozen=True)
class PageParts:
    """What the task and the method of a run add to its page.

    Args:
        metrics: the task's, for the headline, the table and the figures.
        figures: what else is drawn of a run's folder.
        sections: further sections, above the video.
        observed: patterns of what the method logs beside its losses, which the loss figure leaves out.
    """

    metrics: Sequence[Metric] = ()
    figures: Callable[[RunFolder], list[Picture]] = lambda run: []
    sections: Callable[[RunFolder], list[Section]] = lambda run: []
    observed: Sequence[str] = ()


def write_report(folder: Path, parts: PageParts) -> Path:
    """Writes the run's `report.html` and returns its path; parts that the folder lacks are left out.

    Raises:
        UserError: the folder is missing or cannot be written to.
    """
    from vidistill.files import atomic_path  # imports torch

    if not folder.is_dir():
        raise UserError(f"{folder}: folder not found; give the folder that a run wrote")
    page = _page(RunFolder(folder), parts)
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))
    return folder / "report.html"


def _page(run: RunFolder, parts: PageParts) -> str:
    sections = [
        Section("Results", _table(run, parts.metrics)),
        Section("Figures", _figures(run, parts)),
        *parts.sections(run),
        Section("Side by side", _video(run)),
        Section("What was converted", _plan(part_of(run.results, "plan"))),
        Section("How it was measured", _protocols(run.results)),
        Section("The run", _settings(run)),
    ]
    body = "".join(f"<section><h2>{s.title}</h2>\n{s.body}</section>\n" for s in sections if s.body)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.notes)
    title, sentence = escape(run.name), escape(_sentence(run, parts.metrics))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>' + title + "</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style></head>\n'
        f'<body><main>\n<header><h1>{sentence}</h1><p class="facts">{_facts(run)}</p></header>\n'
        f"{notes}{body}</main></body></html>\n"
    )


def _sentence(run: RunFolder, metrics: Sequence[Metric]) -> str:
    if networks(run.results) or not run.log:
        return headline(run.results, metrics, name=run.name)
    return f"{run.name}: {len(run.log)} steps of training, nothing has been measured yet."


def _facts(run: RunFolder) -> str:
    method, environment = part_of(run.recipe, "method"), part_of(run.results, "environment")
    interval, threads, seed = method.get("key_frame_interval"), environment.get("threads"), run.recipe.get("seed")
    facts = [
        *(part.get("name") for part in (part_of(run.recipe, "task"), method)),
        interval and f"key frame every {interval}",
        environment.get("device"),
        threads and f"{threads} threads",
        None if seed is None else f"seed {seed}",
    ]
    return escape(" · ".join(str(fact) for fact in facts if fact))


def details(title: str, body: str) -> str:
    """A part that opens when its title is clicked."""
    return f"<details><summary>{title}</summary>{body}</details>\n"


def _table(run: RunFolder, metrics: Sequence[Metric]) -> str:
    names, body, part = [escape(name) for name in networks(run.results)], "", ""
    if not results_table(run.results, metrics):
        return ""
    for row, cells in table_rows(run.results, metrics):
        rule = ' class="rule"' if row.part != part else ""
        body += f'<tr{rule}><th scope="row">{row.label}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        part = row.part
    head = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in names)
    table = (
        f'<div class="wide"><table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'
    )
    return table + details("As Markdown", f"<pre>{escape(results_table(run.results, metrics))}</pre>")


def _figures(run: RunFolder, parts: PageParts) -> str:
    drawn = [
        *figures.quality_against_cost(run.results, parts.metrics),
        *figures.quality_by_distance(run.results, parts.metrics),
        figures.latencies(run.results),
        figures.loss_curves(run.log, parts.observed),
        *parts.figures(run),
    ]
    shown = "".join(_figure(picture) for picture in drawn if picture is not None)
    return f'<div class="figures">{shown}</div>' if shown else ""


def _figure(picture: Picture) -> str:
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{picture.dark}">'
        f'<img src="{picture.light}" alt="{escape(picture.alt)}"></picture>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )


def strip_table(rows: Sequence[StripRow], legend: Sequence[tuple[str, str]] = ()) -> str:
    """Rows of pictures under one head; legend: (name, #rrggbb) of each colour that occurs in them."""
    if not rows:
        return ""
    body = ""
    for row in rows:
        note = f"<small>{escape(row.note)}</small>" if row.note else ""
        images = "".join(
            f'<td><img src="{uri}" alt="{escape(f"{name}, {row.title}")}"></td>' for name, uri in row.images.items()
        )
        body += f'<tr><th scope="row">{escape(row.title)}{note}</th>{images}</tr>\n'
    head = "<td></td>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0].images)
    items = "".join(f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for name, colour in legend)
    table = f'<table class="strip"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>\n' + (f'<ul class="legend">{items}</ul>' if items else "")


def distance_title(distance: int | None) -> str:
    """Of a row of pictures: how far its frame is from the key frame."""
    if distance is None:
        return "frame"
    return "key frame" if distance == 0 else f"key frame + {distance}"


def slider(before: tuple[str, str], after: tuple[str, str]) -> str:
    """(name, data URI) of two pictures of one size, one over the other; the corner of the left one is dragged.

    No script.
    """
    return (
        f'<div class="slider"><img src="{after[1]}" alt="{escape(after[0])}">'
        f'<div><img src="{before[1]}" alt="{escape(before[0])}"></div></div>\n'
        f'<p class="facts">Left {escape(before[0])}, right {escape(after[0])}: drag the corner of the left one.</p>'
    )


def _video(run: RunFolder) -> str:
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


def _plan(plan: Values) -> str:
    converted, blocks, share = (number(plan, key) for key in ("converted", "blocks", "share"))
    left: dict[str, list[str]] = {}
    for layer in filter(None, plan.get("left") or []):
        left.setdefault(str(layer.get("reason") or "no reason given"), []).append(str(layer.get("path")))
    body = ""
    if converted is not None and blocks is not None:
        share_text = "" if share is None else f", {share:.1%} of all multiply-accumulates"
        body = f"<p>{converted:.0f} of {blocks:.0f} blocks have a student{share_text}.</p>\n"
    students = part_of(plan, "students")
    if students:
        items = "".join(f"<li>{escape(str(count))} × {escape(str(kind))}</li>" for kind, count in students.items())
        body += details("Which students", f"<ul>{items}</ul>")
    if left:
        items = "".join(
            f"<dt>{escape(reason)}</dt><dd>{', '.join(f'<code>{escape(path)}</code>' for path in paths)}</dd>\n"
            for reason, paths in left.items()
        )
        body += details(f"What was left as it is: {sum(map(len, left.values()))}, and why", f"<dl>{items}</dl>")
    return body


def _protocols(results: Values) -> str:
    sentences: dict[str, list[str]] = {}
    for name, scores in networks(results).items():
        size = "×".join(map(str, scores.get("size") or []))
        timed = ", ".join(str(fact) for fact in (scores.get("device"), scores.get("precision"), size) if fact)
        for sentence in (part_of(scores, "metrics").get("protocol"), timed and f"Timed on {timed}."):
            if sentence:
                sentences.setdefault(str(sentence), []).append(name)
    if not sentences:
        return ""
    items = [f"<b>{escape(', '.join(names))}:</b> {escape(sentence)}" for sentence, names in sentences.items()]
    gmacs = [[number(scores, "gmacs", key) for key in ("delta", "key")] for scores in networks(results).values()]
    if any(delta not in (None, key) for delta, key in gmacs):
        items.append(GMAC)
    return "".join(f"<p>{item}</p>\n" for item in items) + _undecodable(results)


def _undecodable(results: Values) -> str:
    undecodable = [part_of(scores, "metrics").get("undecodable") or [] for scores in networks(results).values()]
    reasons = dict.fromkeys(str(reason) for reasons in undecodable for reason in reasons)
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    title = f"What could not be decoded and was not scored: {len(reasons)}"
    return details(title, f"<ul>{items}</ul>") if items else ""


def _settings(run: RunFolder) -> str:
    parts = {"Recipe": run.recipe, "Environment": run.results.get("environment"), "Run": run.results.get("run")}
    texts = {title: yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for title, part in parts.items() if part}
    return "".join(details(title, f"<pre>{escape(text)}</pre>") for title, text in texts.items())


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
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1.75rem 2rem; }
figure { margin: 0; } img, video { display: block; width: 100%; height: auto; } video { border-radius: 6px; }
.strip { width: 100%; min-width: 38rem; table-layout: fixed; font-size: 0.875rem; } .strip small { display: block; }
.strip td, .strip th { padding: 0.2rem; vertical-align: middle; } .strip thead > tr > :first-child { width: 8.5rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; padding: 0; list-style: none; font-size: 0.875rem; }
.legend i { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 2px; }
.slider { position: relative; width: min(100%, 640px); container-type: inline-size; }
.slider > div { position: absolute; inset: 0 auto 0 0; width: 50%; min-width: 1.2rem; max-width: 100%; }
.slider > div { overflow: hidden; resize: horizontal; border-right: 2px solid #fff; }
.slider > div img { width: 100cqw; max-width: none; }
"""
