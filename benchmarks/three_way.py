"""The picture of docs/cross_resolution.md: the three-way experiment's sweep, with a taught student beside it.

Usage: python benchmarks/three_way.py [--sweep runs/three_way] [--taught runs/detail_32_taught_0] [--out FILE.png]
First: benchmarks/detail.sh, and vidistill sweep recipes/synthetic_detail_teacher.yaml --views 64,32,64:32
out=runs/three_way.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from vidistill.report.figures import STYLE
from vidistill.runs.sweep import TAUGHT, Point, draw_points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=Path("runs/three_way"))
    parser.add_argument("--taught", type=Path, default=Path("runs/detail_32_taught_0"))
    parser.add_argument("--out", type=Path, default=Path("docs/three_way.png"))
    chosen = parser.parse_args()
    points = [Point(**values) for values in json.loads((chosen.sweep / "sweep.json").read_text())]
    student = json.loads((chosen.taught / "results.json").read_text())["student"]
    costs = student["gmacs"]["clip"], student["latency_ms"]["amortised"]
    points.append(Point("32", TAUGHT, student["metrics"]["top1"], *costs, student["device"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        draw_points(figure.add_subplot(), places=[(point, point.gmacs) for point in points], label="GMAC a clip")
        figure.savefig(chosen.out, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
