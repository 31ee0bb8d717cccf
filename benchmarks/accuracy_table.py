"""Recognition runs as one Markdown table: accuracy over all scored videos, by variant, beside the first variant's.

Usage: python benchmarks/accuracy_table.py PREFIX BASE [VARIANT…], for folders PREFIX + variant + _seed[_fold].
Mean and spread (largest − smallest) are over seeds, the folds of one seed counted as one set. The difference to BASE
comes with a 95 % interval of a paired bootstrap over videos, each video with its mean over the seeds.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

RESAMPLES = 10_000

Right = dict[int, dict[str, bool]]  # by seed, by video


def read(prefix: str) -> dict[str, Right]:
    """By variant which videos were right."""
    right: dict[str, Right] = defaultdict(lambda: defaultdict(dict))
    folder = Path(prefix).parent
    for path in sorted(folder.glob(f"{Path(prefix).name}*/results.json")):
        match = re.fullmatch(rf"{Path(prefix).name}(.+?)_(\d+)(?:_\d+)?", path.parent.name)
        if match:
            rows = json.loads(path.read_text())["student"]["metrics"]["predictions"]
            right[match[1]][int(match[2])] |= {name: best in classes for name, classes, best in rows}
    return right


def by_video(right: Right) -> dict[str, float]:
    names = set.intersection(*(set(videos) for videos in right.values()))
    return {name: float(np.mean([videos[name] for videos in right.values()])) for name in sorted(names)}


def interval(ours: dict[str, float], base: dict[str, float]) -> tuple[float, float, float]:
    """The mean difference and its 95 % interval."""
    names = sorted(ours.keys() & base.keys())
    gaps = np.array([ours[name] - base[name] for name in names])
    rng = np.random.default_rng(0)
    means = gaps[rng.integers(len(gaps), size=(RESAMPLES, len(gaps)))].mean(axis=1)
    return float(gaps.mean()), *np.percentile(means, [2.5, 97.5]).tolist()


def main() -> None:
    prefix, base, *variants = sys.argv[1:]
    by_variant = read(prefix)
    print(f"| | seeds | videos | accuracy | against {base}, 95 % |")
    print("|---|---|---|---|---|")
    for name in [base, *(variants or [v for v in by_variant if v != base])]:
        accuracies = [float(np.mean(list(videos.values()))) for videos in by_variant[name].values()]
        gap = (
            ""
            if name == base
            else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*interval(by_video(by_variant[name]), by_video(by_variant[base])))
        )
        count = len(by_video(by_variant[name]))
        print(
            f"| {name} | {len(accuracies)} | {count} | {np.mean(accuracies):.4f} ± {np.ptp(accuracies):.4f} | {gap} |"
        )


if __name__ == "__main__":
    main()
