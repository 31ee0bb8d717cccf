"""The runs of benchmarks/blocks.sh as one table and one figure: quality, GMAC and milliseconds measured side by side.

Usage: python benchmarks/pareto.py runs [--out docs/pareto.png] [--runtime eager] [--precision float32]
Quality is the mean and spread (largest − smallest) over seeds; cost is that of each name's first seed.
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

from vidistill.checkpoint import load_student
from vidistill.distill.stateful import StatefulNetwork
from vidistill.profile import describe_device
from vidistill.scoring.results import profile_models

SIZE = (360, 480)
INTERVAL = 10


def quality(folders: list[Path]) -> tuple[np.ndarray, float]:
    """mIoU with a key frame every 10, by seed, and the teacher's."""
    found = [json.loads((folder / "results.json").read_text()) for folder in folders]
    return np.array([r["student"]["metrics"]["miou"] for r in found]), found[0]["teacher"]["metrics"]["miou"]


def measure(folders: dict[str, Path], teacher: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    models: dict[str, StatefulNetwork] = {"teacher": load_student(teacher)}
    models |= {name: load_student(folder / "student.safetensors") for name, folder in folders.items()}
    dtype = getattr(torch, arguments.precision)
    frames = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)
    models = {name: model.to(dtype) for name, model in models.items()}
    return profile_models(models, frames, interval=INTERVAL, compiled=arguments.runtime == "compiled")


def figure(points: dict[str, tuple[float, float]], teacher: tuple[float, float], path: Path, title: str) -> None:
    fig, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(*teacher, "k*", markersize=12)
    axes.annotate("teacher", teacher, xytext=(6, -4), textcoords="offset points")
    axes.axhline(0.98 * teacher[1], color="0.7", linewidth=1, linestyle="--")
    for name, point in points.items():
        axes.plot(*point, "o")
        axes.annotate(name.replace("_", " "), point, xytext=(6, -4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="delta frame, milliseconds", ylabel="mIoU, key frame every 10", title=title)
    fig.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--teacher", type=Path, default=Path("runs/camvid_teacher/student.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("docs/pareto.png"))
    parser.add_argument("--runtime", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    names: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(arguments.runs.glob("blocks_*_[0-9]/results.json")):
        names[path.parent.name.removeprefix("blocks_").rsplit("_", 1)[0]].append(path.parent)
    measured = measure({name: folders[0] for name, folders in names.items()}, arguments.teacher, arguments)
    base = measured["teacher"]["latency_ms"]["key"]["p50"]
    title = f"{describe_device(torch.device('cpu'))}\n{SIZE[1]}×{SIZE[0]}, {arguments.runtime}, {arguments.precision}"
    print(title.replace("\n", "; ") + "\n")
    print("| student | seeds | mIoU, every 10 | of teacher | GMAC delta | amortised | delta ms | teacher ÷ | key ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    points = {}
    for name, folders in names.items():
        mious, teacher = quality(folders)
        gmacs, times = measured[name]["gmacs"], measured[name]["latency_ms"]
        delta = times["delta"]["p50"]
        points[name] = (delta, float(mious.mean()))
        print(
            f"| {name.replace('_', ' ')} | {len(mious)} | {mious.mean():.4f} ± {np.ptp(mious):.4f} | "
            f"{mious.mean() / teacher:.3f} | {gmacs['delta']:.2f} | {gmacs['amortised']:.2f} | {delta:.1f} | "
            f"{base / delta:.2f} | {times['key']['p50']:.1f} |"
        )
    figure(points, (base, teacher), arguments.out, title)


if __name__ == "__main__":
    main()
