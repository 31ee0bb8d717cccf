"""The figures that a recognition run adds to a report: classes over time, learned weights, and its confusions."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidistill.report.figures import BASELINES, INK, STUDENT, TEACHER, Picture, picture
from vidistill.report.table import part_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 6  # drawn over time
COLOURS = (STUDENT, *BASELINES)


def timelines(path: Path) -> list[Picture]:
    """Of a timeline.npz: for student and teacher the probability of the likeliest classes, frame by frame."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    said = {name: arrays[name] for name in ("student", "teacher") if name in arrays}
    peaks = np.max([found.max(axis=0) for found in said.values()], axis=0)
    shown = sorted(np.argsort(-peaks, kind="stable")[:MOST_CLASSES].tolist())
    names = [str(name) for name in arrays["class_names"]]
    pictures = []
    for network, found in said.items():
        caption = f"What the {network} says over time on a few videos strung together; above, what they are"
        best = [names[i] for i in dict.fromkeys(found.argmax(axis=1).tolist())]
        alt = f"Class probabilities of the {network} over {len(found)} frames; it says, in order: {', '.join(best)}"
        draw = partial(_timeline, found=found, labels=arrays["labels"], classes=shown, names=names)
        pictures.append(picture(draw, alt, caption))
    return pictures


def _timeline(
    axes: "Axes", *, found: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[int], names: list[str]
) -> None:
    colours = dict(zip(classes, cycle(COLOURS), strict=False))
    for class_id in classes:
        axes.plot(found[:, class_id], color=colours[class_id], linewidth=1.5, label=names[class_id])
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    for start, end in pairwise(cuts):
        true = int(labels[start])
        if true >= 0:
            axes.plot([start, end - 1], [1.06, 1.06], color=colours.get(true, TEACHER), linewidth=5)
            axes.annotate(names[true], ((start + end) / 2, 1.1), ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="frame", ylabel="probability", ylim=(-0.02, 1.22))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def learned_weights(log: list[dict[str, float]]) -> Picture | None:
    """The weight that each loss had, step by step; None where they were not learned."""
    names = [name for name in (log[-1] if log else {}) if name.startswith("weight_")]
    if not names:
        return None
    curves = {name.removeprefix("weight_"): [line.get(name, np.nan) for line in log] for name in names}
    words = "; ".join(f"{name} from {curve[0]:.3g} to {curve[-1]:.3g}" for name, curve in curves.items())
    draw = partial(_weights, steps=[line["step"] for line in log], curves=curves)
    return picture(draw, f"Learned weights of the losses: {words}", "The weights that the run gave its losses")


def _weights(axes: "Axes", *, steps: list[float], curves: dict[str, list[float]]) -> None:
    for (name, curve), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        axes.plot(steps, curve, color=colour, linewidth=1.6, label=name)
    axes.set(xlabel="step", ylabel="weight")
    axes.legend()


def confusions(results: dict[str, Any]) -> Picture | None:
    """The student's videos by true and predicted class; None where none was scored."""
    counts = part_of(part_of(results, "student"), "metrics").get("confusion")
    if not counts:
        return None
    matrix = np.array(counts, dtype=float)
    right = int(np.trace(matrix))
    alt = f"Confusion matrix of {len(matrix)} classes: {right} of {int(matrix.sum())} videos right"
    return picture(
        partial(_matrix, matrix=matrix), alt, "The student's videos: true class down, predicted class across"
    )


def _matrix(axes: "Axes", *, matrix: NDArray[np.floating]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    colours = LinearSegmentedColormap.from_list("student", [f"{STUDENT}00", STUDENT])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    axes.grid(visible=False)
    if len(matrix) <= 12:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                axes.annotate(f"{count:.0f}", (column, row), ha="center", va="center", color=INK, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(matrix)), yticks=range(len(matrix)))
