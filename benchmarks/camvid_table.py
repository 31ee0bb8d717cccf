"""The CamVid runs under a folder as one Markdown table: mean and spread (largest − smallest) over the seeds.

Usage: python benchmarks/camvid_table.py runs
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np


def mean_iou(metrics: dict[str, Any], interval: int) -> float:
    """The mean over the first `interval` distances; a per-frame network has only one."""
    return float(np.mean(metrics["miou_by_distance"][:interval]))


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {"student": results["student"]}
    if results["baselines"].get("hold"):
        found["hold"] = results["baselines"]["hold"]
    if results["teacher"]:
        found["teacher"] = results["teacher"]
    return found


def figures(entry: dict[str, Any]) -> list[float]:
    metrics = entry["metrics"]
    dash_cam = entry["more_metrics"].get("videos", {}).get("agreement")
    return [
        mean_iou(metrics, 3), mean_iou(metrics, 10), metrics["agreement"] or np.nan,
        np.nan if dash_cam is None else dash_cam, metrics["temporal_consistency"], metrics["flip_rate"],
    ]  # fmt: skip


def main() -> None:
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for path in sorted(Path(sys.argv[1]).glob("camvid_*_[0-9]/results.json")):
        name = path.parent.name.rsplit("_", 1)[0]
        for who, entry in rows_of(json.loads(path.read_text())).items():
            groups[name if who == "student" else who].append(figures(entry))
    print("| | seeds | mIoU, key every 3 | every 10 | agreement | dash-cam agreement | consistency | flip rate |")
    print("|---|---|---|---|---|---|---|---|")
    for name, values in groups.items():
        table = np.array(values)
        if name in ("teacher", "hold"):
            table = table[:1]
        cells = [f"{np.nanmean(c):.4f} ± {np.ptp(c):.4f}" if len(c) > 1 else f"{c[0]:.4f}" for c in table.T]
        print(f"| {name} | {len(table)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
