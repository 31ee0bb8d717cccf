"""Runs of benchmarks/vid4.sh beside their teacher and bicubic enlargement: quality on Vid4 and cost, in Markdown.

Usage: python benchmarks/vid4_table.py RUN… [--data data/vid4] [--teacher runs/vid4_edvr] [--out runs/vid4.json]
RUN: folders …_STUDENT_KIND_SEED, as in runs/vid4_*_[0-9]; those without a student.safetensors are left out.
Over seeds: mean ± (largest − smallest); the gain over `none` is taken seed by seed.

All figures are kept in OUT: what has one there, of the same weights and data, is not scored again. Costs are measured
anew, side by side, where a kind of network has none yet.
"""

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidistill.data.datasets.super_resolution import vid4
from vidistill.runs.results import baselines_of, write_results
from vidistill.runtimes.measure import noise_frames, profile_students
from vidistill.stream.evaluate import evaluate
from vidistill.students.files import load_student
from vidistill.students.student import Student
from vidistill.tasks.super_resolution import SuperResolution
from vidistill.tasks.super_resolution.show import BICUBIC

SIZE = (144, 180)  # of Vid4's low-resolution frames, height and width
NUM_FRAMES = 3
UNTAUGHT = "none"

Metrics = dict[str, Any]
Groups = dict[tuple[str, str], dict[int, Metrics]]  # by student and kind: by seed


def load(folders: Sequence[Path]) -> dict[str, Student]:
    """The finished ones' students by the folder's name."""
    files = {folder.name: folder / "student.safetensors" for folder in folders}
    return {name: load_student(file) for name, file in files.items() if file.exists()}


def digest_of(model: Student, data: Path) -> str:
    """Tells whether a figure is of these weights and this data."""
    digest = hashlib.sha256(str(data.resolve()).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def score(models: dict[str, Student], known: dict[str, Any], data: Path, task: SuperResolution) -> dict[str, Any]:
    """The metrics of all, by name. Only those that are not `known` are made."""
    digests = {name: digest_of(model, data) for name, model in models.items()}
    missing = {name: model for name, model in models.items() if known.get(name, {}).get("digest") != digests[name]}
    clips = vid4(data, scale=task.scale).sequences if missing else []
    metrics = evaluate(missing, clips, task, intervals=dict.fromkeys(missing, 1)) if missing else {}
    return {name: {"digest": digests[name], **metrics.get(name, known.get(name, {}))} for name in models}


def measure(models: dict[str, Student], known: dict[str, Any]) -> dict[str, Any]:
    """The costs of all, measured side by side, unless all are known."""
    if models.keys() <= known.keys():
        return known
    return profile_students(models, noise_frames(NUM_FRAMES, SIZE), interval=1)


def parts_of(run: str) -> tuple[str, str, int]:
    """Student, kind and seed of a folder's name."""
    *_, student, kind, seed = run.split("_")
    return student, kind, int(seed)


def one_of_each(runs: Sequence[str]) -> dict[str, str]:
    """A run of every student's network, by its name."""
    return {parts_of(run)[0]: run for run in sorted(runs, reverse=True)}


def quality_table(scores: dict[str, Metrics], runs: Sequence[str]) -> list[list[str]]:
    clips = list(next(iter(scores.values()))["by_clip"])
    groups: Groups = defaultdict(dict)
    for run in sorted(runs):
        student, kind, seed = parts_of(run)
        groups[student, kind][seed] = scores[run]
    head = ["", "kind", "seeds", "PSNR-Y", "SSIM-Y", *(f"{clip}, PSNR-Y" for clip in clips), "warped difference"]
    rows = [[*head, "PSNR-Y over none"]]
    truth = next(iter(scores.values()))["warped_difference_of_truth"]
    rows.append(["truth", "", "", *[""] * (2 + len(clips)), cell([truth]), ""])
    rows += [[name, "", "", *quality(clips, [scores[name]]), ""] for name in scores if name not in runs]
    for (student, kind), by_seed in groups.items():
        gains = gains_of(by_seed, {} if kind == UNTAUGHT else groups.get((student, UNTAUGHT), {}))
        rows.append([student, kind, str(len(by_seed)), *quality(clips, list(by_seed.values())), cell(gains)])
    return rows


def quality(clips: Sequence[str], entries: Sequence[Metrics]) -> list[str]:
    def over(value: Callable[[Metrics], float | None], digits: int = 3) -> str:
        return cell([value(entry) for entry in entries], digits)

    by_clip = [over(lambda entry, clip=clip: entry["by_clip"][clip]["psnr"]) for clip in clips]
    psnr, ssim = over(lambda entry: entry["psnr"]), over(lambda entry: entry["ssim"], 4)
    return [psnr, ssim, *by_clip, over(lambda entry: entry["warped_difference"])]


def gains_of(ours: dict[int, Metrics], untaught: dict[int, Metrics]) -> list[float]:
    return [ours[seed]["psnr"] - untaught[seed]["psnr"] for seed in ours if seed in untaught]


def cost_table(costs: dict[str, Metrics]) -> list[list[str]]:
    rows = [["", "frames a second", "ms", "GMAC", "peak MB", "parameters"]]
    for name, cost in costs.items():
        milliseconds, macs = cost["latency_ms"]["amortised"], cost["gmacs"]["amortised"]
        measured = [f"{cost['frames_per_second']:.2f}", f"{milliseconds:.1f}", f"{macs:.2f}"]
        rows.append([name, *measured, f"{cost['peak_memory_mb']['key']:.0f}", str(cost["parameters"])])
    return rows


def cell(values: Sequence[float | None], digits: int = 3) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.ptp(known):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def show(rows: Sequence[Sequence[str]]) -> None:
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=Path("data/vid4"))
    parser.add_argument("--teacher", type=Path, default=Path("runs/vid4_edvr"))
    parser.add_argument("--out", type=Path, default=Path("runs/vid4.json"))
    arguments = parser.parse_args()
    students, teacher = load(arguments.runs), load([arguments.teacher])
    if not students or not teacher:
        raise SystemExit("no student.safetensors in any RUN, or none in --teacher: train them first")
    (edvr,) = teacher.values()
    task = edvr.task
    models = baselines_of(task, edvr) | teacher | students
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    scores = known.get("scores", {}) | score(models, known.get("scores", {}), arguments.data, task)
    write_results({**known, "scores": scores}, arguments.out)
    kinds = {name: students[run] for name, run in one_of_each(list(students)).items()}
    costs = measure({BICUBIC: models[BICUBIC], **teacher, **kinds}, known.get("costs", {}))
    write_results({"scores": scores, "costs": costs}, arguments.out)

    shown = {name: scores[name] for name in models}
    print(f"{scores[BICUBIC]['protocol']}\n")
    show(quality_table(shown, list(students)))
    low, (height, width) = costs[BICUBIC], (side * task.scale for side in SIZE)
    print(f"\n{SIZE[1]}×{SIZE[0]} → {width}×{height}, {low['device']}, {low['precision']}, medians, batch 1\n")
    show(cost_table(costs))


if __name__ == "__main__":
    main()
