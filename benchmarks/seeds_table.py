"""Runs on frames, by variant, as one Markdown table: mean and spread (largest − smallest) over the seeds.

Usage: python benchmarks/seeds_table.py PREFIX, for folders PREFIX + variant + _seed, as in runs/camvid_ or runs/pets_.
"every 3": the mean over the first three distances to the key frame; "as trained": at the recipe's own interval.
Super-resolution has benchmarks/vid4_table.py.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Entry = dict[str, Any]
QUALITIES = {"miou": "mIoU", "ap50": "AP50"}  # scored by distance to the key frame


def every(interval: int, name: str) -> Callable[[Entry], float | None]:
    """The mean over the first `interval` distances; a per-frame network has only one."""
    return lambda entry: float(np.mean(entry["metrics"][f"{name}_by_distance"][:interval]))


def metric(name: str) -> Callable[[Entry], float | None]:
    return lambda entry: entry["metrics"].get(name)


def columns_of(entry: Entry) -> dict[str, Callable[[Entry], float | None]]:
    """What the table shows of a run, by what its task is scored with."""
    name = next((name for name in QUALITIES if entry["metrics"].get(name) is not None), None)
    if name is None:
        raise SystemExit(f"nothing here was scored by {' or '.join(QUALITIES.values())}")
    title = QUALITIES[name]
    columns = {f"{title}, key frame every 3": every(3, name), "as trained": metric(name)}
    columns |= {"agreement": metric("agreement"), "agreement, other videos": elsewhere}
    columns |= {"AP@[.5:.95]": metric("ap"), "consistency": metric("temporal_consistency")}
    columns |= {"flip rate": metric("flip_rate"), "GMAC": lambda entry: entry.get("gmacs", {}).get("amortised")}
    return columns


def elsewhere(entry: Entry) -> float | None:
    """Agreement with the teacher on a second data set, where there was one."""
    return next((metrics["agreement"] for metrics in entry.get("more_metrics", {}).values()), None)


def rows_of(results: dict[str, Any]) -> dict[str, Entry]:
    found = {"teacher": results["teacher"], **results["baselines"], "student": results["student"]}
    return {name: entry for name, entry in found.items() if entry and entry["metrics"]}


def cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{np.mean(known):.4f} ± {np.ptp(known):.4f}" if len(known) > 1 else f"{known[0]:.4f}"


def main() -> None:
    prefix = Path(sys.argv[1])
    groups: dict[str, list[Entry]] = defaultdict(list)
    for path in sorted(prefix.parent.glob(f"{prefix.name}*_[0-9]/results.json")):
        variant = path.parent.name.removeprefix(prefix.name).rsplit("_", 1)[0]
        for who, entry in rows_of(json.loads(path.read_text())).items():
            name = variant if who == "student" else who
            groups[name] = [*groups[name], entry] if who == "student" else [entry]
    if not groups:
        raise SystemExit(f"there is no {prefix}*_[0-9]/results.json")
    columns = columns_of(next(iter(groups.values()))[0])
    table = [
        [name, str(len(entries)), *(cell([of(entry) for entry in entries]) for of in columns.values())]
        for name, entries in groups.items()
    ]
    shown = [i for i in range(len(columns) + 2) if any(row[i] for row in table)]
    for row in [["", "seeds", *columns], ["---"] * (len(columns) + 2), *table]:
        print(f"| {' | '.join(row[i] for i in shown)} |")


if __name__ == "__main__":
    main()
