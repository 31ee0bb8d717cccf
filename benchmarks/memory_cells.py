"""The picture of docs/space_time.md: the time loss's gap and the variance of the teacher's cell, of several runs.

Usage: python benchmarks/memory_cells.py RUN… [--out docs/memory_cells.png]
RUN: folders …_KIND_SEED of benchmarks/vid4.sh, as in runs/vid4_vespcn_{both,random,frozen,collapse}_0.
All as far as the shortest has come. Where each froze its ConvLSTM is printed.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from vidistill.report.figures import STYLE, draw_curves, logged, steps_of

LABELS = {"time_gap": "gap of the two cells, mean square", "cell_variance": "variance of the teacher's cell"}


def read(run: Path) -> list[dict[str, float]]:
    """The run's log. Errors: SystemExit where it says nothing of a ConvLSTM."""
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if not set(LABELS) <= log[0].keys():
        raise SystemExit(f"{run}: logged no memory cell; give runs of space_time whose time loss is not off")
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/memory_cells.png"))
    chosen = parser.parse_args()
    logs = {" ".join(run.name.split("_")[-2:]): read(run) for run in chosen.runs}
    length = min(map(len, logs.values()))
    for kind, log in logs.items():
        froze = next((int(line["step"]) for line in log if line["cell_frozen"] == 1), None)
        print(f"{kind}: {'it did not freeze' if froze is None else f'frozen from step {froze} on'}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.7), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 2), LABELS.items(), strict=True):
            curves = {kind: logged(log[:length], [name])[name] for kind, log in logs.items()}
            draw_curves(axes, steps=steps_of(next(iter(logs.values()))[:length]), curves=curves, ylabel=label)
        figure.savefig(chosen.out, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
