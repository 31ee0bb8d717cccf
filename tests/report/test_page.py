"""The page of a run: whole, self-contained, and true to its numbers; with any part missing, and with hostile text."""

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vidistill.errors import UserError
from vidistill.methods import METHODS, space_time
from vidistill.methods.delta import Delta
from vidistill.methods.space_time import SpaceTime
from vidistill.report import figures
from vidistill.report import page as page_module
from vidistill.report.figures import Picture
from vidistill.report.page import PageParts, write_report
from vidistill.report.table import headline, results_table
from vidistill.runs.run import page_parts
from vidistill.tasks.segmentation import Segmentation

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
HOSTILE = "<script>alert('x')</script>"
TASK = Segmentation(num_classes=3)
METRICS = TASK.metrics


def scores(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "metrics": {
            "miou": 0.6072, "miou_by_distance": [0.6161, None, 0.5983], "agreement": 0.9704,
            "agreement_by_distance": [0.9991, 0.9602, 0.9512], "temporal_consistency": 0.7203, "flip_rate": 0.0032,
            "num_scored": 48, "num_frames": 51, "protocol": "mIoU: over all phases.",
        },
        "gmacs": {"key": 9.07, "delta": 1.95, "amortised": 2.66, "amortised_deployed": 2.82},
        "latency_ms": {
            "key": {"p50": 80.1, "p95": 86.51, "p99": 97.72}, "delta": {"p50": 38.2, "p95": 41.26, "p99": 46.6},
            "first_delta": {"p50": 61.0, "p95": 62.5, "p99": 63.25}, "amortised": 44.7,
        },
        "parameters": 7_123_456, "peak_memory_mb": {"key": 330.5, "delta": 188.2}, "device": "cpu",
    }  # fmt: skip
    return values | changes


def teacher_scores() -> dict[str, Any]:
    metrics = {"miou": 0.6400, "agreement": None, "temporal_consistency": None, "protocol": "mIoU: over all phases."}
    times = {"key": {"p50": 76.4, "p95": 85.5, "p99": 96.6}, "delta": None, "first_delta": None, "amortised": 76.4}
    gmacs = {"key": 9.07, "delta": None, "amortised": 9.07}
    return scores(metrics=metrics, latency_ms=times, gmacs=gmacs, parameters=5_700_000, peak_memory_mb=None)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out matplotlib's part, which takes seconds."""
    monkeypatch.setattr(figures, "picture", lambda draw, alt, caption: Picture("data:", "data:", alt, caption))


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "name": "ddrnet_23_slim",
        "teacher": teacher_scores(),
        "student": scores(),
        "baselines": {"hold": scores(latency_ms=None, gmacs=None)},
        "environment": {"device": "cpu", "threads": 2, "torch": "2.9.0"},
        "plan": {
            "converted": 52,
            "blocks": 56,
            "share": 0.973,
            "students": {"separable of 16 channels": 40, "nothing": 12},
            "left": [{"path": "stem.0", "reason": "first layer"}],
        },
        "run": {"seconds": 12.5},
    }


@pytest.fixture
def folder(tmp_path: Path, results: dict[str, Any]) -> Path:
    method = {"name": "delta", "key_frame_interval": 3}
    recipe = {"task": {"name": "segmentation"}, "student": {"from": "teacher"}, "method": method, "seed": 7}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "results.json").write_text(json.dumps(results))
    lines = [
        {"step": i, "loss": 2 / i, "task": 1 / i, "delta": float("nan"), "learning_rate": 0.1} for i in range(1, 8)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_strip(tmp_path, class_names=["road", HOSTILE, "never there"])
    (tmp_path / "side_by_side.mp4").write_bytes(b"pretend video")
    return tmp_path


def write_strip(folder: Path, class_names: list[str]) -> None:
    teacher = np.zeros((2, 6, 8), np.uint8)
    teacher[:, 3:] = 1
    student = teacher.copy()
    student[1, 0, :6] = 1  # 6 of 48 pixels
    maps: Any = {"frames": np.full((2, 6, 8, 3), 90, np.uint8), "teacher": teacher, "student": student}
    palette = np.array([[1, 2, 3], [160, 170, 180], [5, 5, 5]], np.uint8)
    distances, names = np.array([0, 2]), np.array(class_names)
    np.savez(folder / "strip.npz", **maps, distances=distances, palette=palette, class_names=names)


class Page(HTMLParser):
    """Checks that tags balance, and keeps text and attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def page_of(folder: Path, *methods: Any) -> Page:
    """The page of a run of segmentation, by default of delta distillation."""
    return Page(write_report(folder, page_parts(TASK, methods or [Delta()])))


def change(folder: Path, values: dict[str, Any]) -> None:
    (folder / "results.json").write_text(json.dumps(values))


def cells(markdown: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_page_is_whole_and_needs_nothing_else(folder: Path) -> None:
    page = page_of(folder)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"data:[^\"]*", "", page.source))
    addresses = [tag.get("src") or tag.get("srcset") or "" for _, tag in page.tags if {"src", "srcset"} & tag.keys()]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert not page.all("script")
    assert not page.all("link")
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("picture")) == 6  # 2 costs, 2 qualities by distance, latencies, losses
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("undrawn")
def test_page_holds_the_numbers(folder: Path) -> None:
    text = page_of(folder).text
    for number in (
        "0.6072",
        "0.9704",
        "0.7203",
        "0.0032",
        "48 / 51",
        "1.950",
        "2.820",
        "38.20 / 41.26 / 46.60",
        "7.123",
    ):
        assert number in text
    assert "52 of 56 blocks have a student, 97.3%" in text
    assert "stem.0" in text
    assert "mIoU: over all phases." in text
    assert "key frame every 3" in text
    assert "agreement 0.875" in text  # of the strip's second row, 42 of 48 pixels
    assert "key_frame_interval: 3" in text
    assert "torch: 2.9.0" in text


def test_headline_compares_with_the_teacher(results: dict[str, Any]) -> None:
    assert headline(results, METRICS, name="net by delta distillation") == (
        "net by delta distillation: a delta frame takes 0.50 of the teacher's time; "
        "amortised, a frame takes 0.59 of the teacher's time and 0.29 of the GMACs; "
        "the student keeps 0.949 of the teacher's mIoU (agreement 0.970)."
    )


def test_headline_says_only_what_is_known(results: dict[str, Any]) -> None:
    results["student"]["device"] = "cuda"  # times of two devices do not compare
    results["student"]["metrics"]["miou"] = None
    assert headline(results, METRICS, name="net") == (
        "net: amortised, a frame takes 0.29 of the teacher's GMACs; "
        "the student agrees with the teacher on 0.970 of the pixels."
    )
    assert headline({"student": teacher_scores()}, METRICS, name="net") == (
        "net: mIoU 0.640; 9.07 GMACs a frame; 76.4 ms a frame; 5.7 million parameters."
    )
    assert headline({}, METRICS, name="net") == "net: nothing has been measured yet."


def test_markdown_cells_equal_the_numbers(results: dict[str, Any]) -> None:
    table = cells(results_table(results, METRICS))
    assert table[""] == ["teacher", "student", "hold"]
    assert table["mIoU"] == ["0.6400", "0.6072", "0.6072"]
    assert table["agreement with the teacher"] == ["–", "0.9704", "0.9704"]
    assert table["scored / all"] == ["–", "48 / 51", "48 / 51"]
    assert table["GMAC, delta frame"] == ["–", "1.950", "–"]
    assert table["GMAC, amortised as deployed"] == ["–", "2.820", "–"]
    assert table["ms, first delta frame: p50 / p95 / p99"] == ["–", "61.00 / 62.50 / 63.25", "–"]
    assert table["ms, amortised"] == ["76.40", "44.70", "–"]
    assert table["parameters, millions"] == ["5.700", "7.123", "7.123"]
    assert table["peak memory, MB: key / delta frame"] == ["–", "330.5 / 188.2", "330.5 / 188.2"]


@pytest.mark.usefixtures("undrawn")
def test_markdown_is_on_the_page(folder: Path, results: dict[str, Any]) -> None:
    assert results_table(results, METRICS) in page_of(folder).text


def test_table_of_nothing_is_empty() -> None:
    assert results_table({}, METRICS) == ""
    assert results_table({"student": None, "teacher": {}, "baselines": None}, METRICS) == ""
    assert results_table({"student": {"metrics": None, "device": "cpu"}}, METRICS) == ""


def test_a_table_of_costs_has_no_rows_for_metrics() -> None:
    assert list(cells(results_table({"student": {"parameters": 2e6}}, METRICS))) == [
        "",
        "-" * 20,
        "parameters, millions",
    ]


def test_unknown_numbers_are_dashes_and_odd_names_stay_cells() -> None:
    values = {
        "student": {"metrics": {"miou": float("nan"), "flip_rate": 0.5}},
        "baselines": {"a|b\nc": {"metrics": {"miou": 0.25}, "parameters": 3e6}},
    }
    table = cells(results_table(values, METRICS))
    assert table[""] == ["student", "a\\|b c"]
    assert table["mIoU"] == ["–", "0.2500"]
    assert table["flip rate"] == ["0.5000", "–"]
    assert table["parameters, millions"] == ["–", "3.000"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("file", ["recipe.yaml", "metrics.jsonl", "results.json", "strip.npz", "side_by_side.mp4"])
@pytest.mark.parametrize("fate", ["missing", "broken"])
def test_any_file_may_be_missing_or_broken(folder: Path, file: str, fate: str) -> None:
    (folder / file).unlink()
    if fate == "broken":
        (folder / file).write_bytes(b"\x80{[not anything")
    page = page_of(folder)
    noted = f"{file} cannot be read" in page.text
    assert noted == (fate == "broken" and not file.endswith("mp4"))  # a broken video is the browser's to tell


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    assert "nothing has been measured yet" in page_of(tmp_path).text


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: folder not found; give the folder that a run wrote"):
        page_of(tmp_path / "none")


def paths(tree: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [at, *(path for key in tree for path in paths(tree[key], (*at, key)))] if isinstance(tree, dict) else [at]


@pytest.mark.usefixtures("undrawn")
def test_any_value_may_be_null_or_missing(folder: Path, results: dict[str, Any]) -> None:
    (folder / "strip.npz").unlink()
    for path in paths(results)[1:]:
        for fate in ("null", "missing"):
            values = copy.deepcopy(results)
            part = values
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = None
            if fate == "missing":
                del part[path[-1]]
            change(folder, values)
            page_of(folder)


@pytest.mark.usefixtures("undrawn")
def test_a_teachers_run_has_no_delta_figures(folder: Path) -> None:
    (folder / "strip.npz").unlink()
    (folder / "side_by_side.mp4").unlink()
    change(folder, {"name": "ddrnet_23_slim", "student": teacher_scores(), "teacher": None, "baselines": {}})
    page = page_of(folder)
    assert len(page.all("picture")) == 1  # losses
    assert "delta frame:" not in page.text
    assert "What was converted" not in page.text


def test_text_from_files_is_escaped(folder: Path, results: dict[str, Any]) -> None:
    results["name"] = HOSTILE
    results["baselines"] = {HOSTILE: scores(), '_$x^{"': scores()}  # the second is no mathematics for matplotlib either
    results["environment"][HOSTILE] = HOSTILE
    results["plan"]["left"] = [{"path": HOSTILE, "reason": HOSTILE}]
    results["student"]["metrics"]["protocol"] = results["student"]["device"] = HOSTILE
    change(folder, results)
    page = page_of(folder)
    assert not page.all("script")
    assert page.text.count(HOSTILE) >= 8
    assert HOSTILE not in page.source


@pytest.mark.usefixtures("undrawn")
def test_what_could_not_be_decoded_is_named_once(folder: Path, results: dict[str, Any]) -> None:
    for network in ("teacher", "student"):
        results[network]["metrics"]["undecodable"] = [f"{HOSTILE}.mp4: cut short"]
    change(folder, results)
    page = page_of(folder)
    assert page.text.count(f"{HOSTILE}.mp4: cut short") == 1
    assert "not scored: 1" in page.text


@pytest.mark.usefixtures("undrawn")
def test_legend_names_the_classes_that_occur(folder: Path) -> None:
    page = page_of(folder)
    colours = [tag["style"] for tag in page.all("i")]
    assert colours[:2] == ["background:#010203", "background:#a0aab4"]
    assert "never there" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_large_video_is_named_and_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(page_of(folder).all("video")) == 1
    monkeypatch.setattr(page_module, "MOST_VIDEO_BYTES", 5)
    page = page_of(folder)
    assert not page.all("video")
    assert "side_by_side.mp4" in page.text


def test_import_is_quick() -> None:
    check = "import sys, vidistill.report.page; sys.exit(bool({'torch', 'matplotlib', 'PIL'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.usefixtures("undrawn")
def test_times_of_two_devices_are_not_compared(results: dict[str, Any]) -> None:
    captions = [picture.caption for picture in figures.quality_against_cost(results, METRICS)]
    assert [("milliseconds" in caption, "GMAC" in caption) for caption in captions] == [(True, False), (False, True)]
    results["student"]["device"] = "cuda"
    assert ["GMAC" in picture.caption for picture in figures.quality_against_cost(results, METRICS)] == [True]
    picture = figures.latencies(results)
    assert picture is not None
    assert "teacher" not in picture.alt


@pytest.mark.usefixtures("undrawn")
def test_figures_say_their_numbers_in_words(results: dict[str, Any]) -> None:
    time, _ = figures.quality_against_cost(results, METRICS)
    assert time.alt.endswith("better: teacher 0.640 at 76.4; student 0.607 at 44.7")
    miou, agreement = figures.quality_by_distance(results, METRICS)
    assert "student from 0.616 to 0.598" in miou.alt
    assert "teacher 0.640" in miou.alt
    assert "hold from 0.999 to 0.951" in agreement.alt
    picture = figures.latencies(results)
    assert picture is not None
    assert "delta frame 38.2; amortised 44.7; teacher 76.4" in picture.alt


def test_what_a_method_observes_is_no_loss_curve() -> None:
    """Neither what the memory cell does nor the moment when it froze is a loss; tests/methods has the cell's figure."""
    log = [
        {"step": 10 * i, "loss": 2 / i, "time": 0.5 / i, "time_gap": 1e-7 / i, "cell_variance": 0.1, "cell_frozen": 0}
        for i in range(1, 6)
    ]
    losses = figures.loss_curves(log, SpaceTime.observed)
    assert losses is not None
    assert "loss from" in losses.alt
    assert "time from" in losses.alt
    assert not re.search("gap|variance|frozen", losses.alt)


@pytest.mark.usefixtures("undrawn")
def test_only_a_space_time_run_has_a_memory_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_time, "picture", figures.picture)
    assert "memory cell" not in page_of(folder, SpaceTime()).text, "it logged none"
    lines = [{"step": i, "loss": 1.0, "time_gap": 0.1, "cell_variance": 0.2, "cell_frozen": 0.0} for i in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "The memory cell of the time loss, it did not freeze" in page_of(folder, SpaceTime()).text
    assert "memory cell" not in page_of(folder, Delta()).text


@pytest.mark.usefixtures("undrawn")
def test_a_page_of_several_methods_has_what_each_adds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a log whose method is not known: what a method did not log it does not draw."""
    assert len(page_of(folder, *METHODS.values()).all("picture")) == len(page_of(folder).all("picture"))


@pytest.mark.usefixtures("undrawn")
def test_without_a_task_the_page_has_the_costs(folder: Path) -> None:
    page = Page(write_report(folder, PageParts()))
    assert "1.950" in page.text
    assert "52 of 56 blocks have a student" in page.text
    assert "0.7203" not in page.text, "no metric is known"
    assert not page.all("i"), "and no strip"
