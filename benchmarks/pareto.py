"""The runs of benchmarks/blocks.sh as one table and one figure: quality, GMAC and milliseconds measured side by side.

Usage: python benchmarks/pareto.py runs [--out docs/pareto.png] [--settings onnx:float32 eager:float32 eager:bfloat16]
Quality is the mean and spread (largest − smallest) over seeds; so is cost where seeds differ in it, as searches do.
Elsewhere one seed is timed. The figure's times are those of the first setting.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from vidistill.runtimes.measure import describe_device, noise_frames, profile_students
from vidistill.students.files import load_student

SIZE = (360, 480)
INTERVAL = 4  # of the frames that are timed: a key frame, the first delta frame and two settled ones


def quality(folders: list[Path]) -> tuple[np.ndarray, np.ndarray, float]:
    """mIoU and agreement with the teacher with a key frame every 10, by seed, and the teacher's mIoU."""
    runs = [json.loads((folder / "results.json").read_text()) for folder in folders]
    metrics = [results["student"]["metrics"] for results in runs]
    teacher = runs[0]["teacher"]["metrics"]["miou"]
    return np.array([m["miou"] for m in metrics]), np.array([m["agreement"] for m in metrics]), teacher


def distinct(folders: list[Path]) -> list[Path]:
    """One folder for each cost among the seeds."""
    costs = {
        json.loads((folder / "results.json").read_text())["student"]["gmacs"]["delta"]: folder
        for folder in reversed(folders)
    }
    return list(costs.values())


def measure(folders: dict[str, Path], teacher: Path, setting: tuple[str, str]) -> dict[str, Any]:
    runtime, precision = setting
    students = {"teacher": load_student(teacher)} | {name: load_student(folder) for name, folder in folders.items()}
    return profile_students(students, noise_frames(4, SIZE), interval=INTERVAL, runtime=runtime, precision=precision)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f}" + (f" ± {np.ptp(values):.2f}" if len(values) > 1 else "")


def figure(points: dict[str, tuple[float, float]], teacher: float, path: Path, title: str) -> None:
    fig, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.axhline(teacher, color="0.4", linewidth=1)
    axes.axhline(0.98 * teacher, color="0.7", linewidth=1, linestyle="--")
    axes.annotate("the teacher, 1", (1, teacher), xytext=(0, 4), textcoords="offset points", fontsize=8)
    axes.annotate("0.98 of it", (1, 0.98 * teacher), xytext=(0, 4), textcoords="offset points", fontsize=8)
    for name, point in points.items():
        axes.plot(*point, "o")
        axes.annotate(name.replace("_", " "), point, xytext=(6, -4), textcoords="offset points", fontsize=8)
    right = 1.2 * max(speed for speed, _ in points.values())  # room for the names
    axes.set(
        xlabel="delta frame, times faster than the teacher",
        ylabel="mIoU, key frame every 10",
        xlim=(1, right),
        title=title,
    )
    fig.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--teacher", type=Path, default=Path("runs/camvid_teacher/student.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("docs/pareto.png"))
    parser.add_argument("--settings", nargs="+", default=["onnx:float32", "eager:float32", "eager:bfloat16"])
    arguments = parser.parse_args()
    names: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(arguments.runs.glob("blocks_*_[0-9]/results.json")):
        names[path.parent.name.removeprefix("blocks_").rsplit("_", 1)[0]].append(path.parent)
    timed = {name: [folder.name for folder in distinct(folders)] for name, folders in names.items()}
    folders_timed = {folder: arguments.runs / folder for chosen in timed.values() for folder in chosen}
    settings = [tuple(setting.split(":")) for setting in arguments.settings]
    measured = {setting: measure(folders_timed, arguments.teacher, setting) for setting in settings}
    where = f"{describe_device(torch.device('cpu'))}, {SIZE[1]}×{SIZE[0]}"
    teacher_ms = {setting: costs["teacher"]["latency_ms"]["key"]["p50"] for setting, costs in measured.items()}
    print(f"{where}; the teacher: {', '.join(f'{r} {p} {teacher_ms[r, p]:.1f} ms' for r, p in settings)}\n")
    columns = ["student", "seeds", "mIoU, every 10", "of teacher", "agreement", "GMAC delta"]
    columns += [f"teacher ÷ delta, {runtime} {precision}" for runtime, precision in settings]
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    points = {}
    for name, folders in names.items():
        mious, agreements, teacher = quality(folders)
        speeds = {
            setting: [teacher_ms[setting] / costs[one]["latency_ms"]["delta"]["p50"] for one in timed[name]]
            for setting, costs in measured.items()
        }
        points[name] = (float(np.mean(speeds[settings[0]])), float(mious.mean()))
        cells = [name.replace("_", " "), str(len(mious)), f"{mious.mean():.4f} ± {np.ptp(mious):.4f}"]
        cells += [f"{mious.mean() / teacher:.3f}", f"{agreements.mean():.4f}"]
        cells.append(spread([measured[settings[0]][one]["gmacs"]["delta"] for one in timed[name]]))
        cells += [spread(speeds[setting]) for setting in settings]
        print(f"| {' | '.join(cells)} |")
    figure(points, teacher, arguments.out, f"{where}\n{' '.join(settings[0])}")


if __name__ == "__main__":
    main()
