"""How recognitions look: on a stream, in a run's pictures, and as figures of its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image
from vidistill.files import atomic_path
from vidistill.ops.clip_view import cut_square
from vidistill.ops.draw import caption
from vidistill.report.figures import BASELINES, INK, STUDENT, TEACHER, Picture, picture
from vidistill.report.table import part_of
from vidistill.tasks.contract import Look, Naming, Pictures, StreamOutput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 5  # classes in a line of JSON
MOST_CLASSES = 6  # drawn over time
SIDE = 288  # pixels of the square that is shown of each frame, for videos may have several sizes
COLOURS = (STUDENT, *BASELINES)


class RecognitionLook(Look):
    """The likeliest class; in words the likeliest few."""

    def __init__(self, naming: Naming) -> None:
        self.naming = naming

    def draw(self, output: StreamOutput) -> Image:
        return caption(output.image, f"{_best(self.naming, output)}, {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> Values:
        order = np.argsort(-output.prediction, kind="stable")[:MOST_NAMED]
        return {"classes": {self.naming.name(int(i)): round(float(output.prediction[i]), 6) for i in order}}


def _best(naming: Naming, output: StreamOutput) -> str:
    """The likeliest class with its probability."""
    best = int(output.prediction.argmax())
    return f"{naming.name(best)} {output.prediction[best]:.0%}"


@dataclass(frozen=True)
class ShownFrame:
    """A frame (H, W, 3) and the classes of its video."""

    image: Image
    classes: tuple[int, ...]


class TimelinePictures(Pictures[ShownFrame]):
    """Panels with each network's likeliest class; class probabilities over time for the page, `timeline.npz`.

    In the file: student and teacher (frames, classes) probabilities, labels (frames,) with −1 for none, class_names.
    """

    def __init__(self, naming: Naming, num_classes: int) -> None:
        self.naming, self.num_classes = naming, num_classes
        self._labels: list[int] = []
        self._probabilities: dict[str, list[NDArray[np.float32]]] = {}

    def panel(self, truth: ShownFrame, outputs: dict[str, StreamOutput]) -> Image:
        self._labels.append(truth.classes[0] if truth.classes else -1)
        for name, output in outputs.items():
            self._probabilities.setdefault(name, []).append(output.prediction)
        square = cut_square(truth.image, share=1.0, place=(0.5, 0.5), size=SIDE)
        words = {name: f"{name}: {_best(self.naming, output)}" for name, output in outputs.items()}
        return np.hstack([caption(square, text) for text in words.values()])

    def save(self, folder: Path) -> None:
        with atomic_path(folder / "timeline.npz") as temporary:
            np.savez_compressed(
                temporary,
                labels=np.array(self._labels),
                class_names=np.array(self.naming.names(self.num_classes)),
                **{name: np.stack(rows) for name, rows in self._probabilities.items()},  # type: ignore[arg-type]
            )


def timelines(path: Path) -> list[Picture]:
    """Of a timeline.npz: for student and teacher the probability of the likeliest classes, frame by frame."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    by_network = {name: arrays[name] for name in ("student", "teacher") if name in arrays}
    peaks = np.max([probabilities.max(axis=0) for probabilities in by_network.values()], axis=0)
    shown = sorted(np.argsort(-peaks, kind="stable")[:MOST_CLASSES].tolist())
    names = [str(name) for name in arrays["class_names"]]
    pictures = []
    for network, probabilities in by_network.items():
        caption = f"What the {network} says over time on a few videos strung together; above, what they are"
        best = [names[i] for i in dict.fromkeys(probabilities.argmax(axis=1).tolist())]
        alt = f"Class probabilities of the {network} over {len(probabilities)} frames; it says, in order: "
        draw = partial(_timeline, probabilities=probabilities, labels=arrays["labels"], classes=shown, names=names)
        pictures.append(picture(draw, alt + ", ".join(best), caption))
    return pictures


def _timeline(
    axes: "Axes",
    *,
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: Sequence[int],
    names: list[str],
) -> None:
    colours = dict(zip(classes, cycle(COLOURS), strict=False))
    for class_id in classes:
        axes.plot(probabilities[:, class_id], color=colours[class_id], linewidth=1.5, label=names[class_id])
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    for start, end in pairwise(cuts):
        true = int(labels[start])
        if true >= 0:
            axes.plot([start, end - 1], [1.06, 1.06], color=colours.get(true, TEACHER), linewidth=5)
            axes.annotate(names[true], ((start + end) / 2, 1.1), ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="frame", ylabel="probability", ylim=(-0.02, 1.22))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def confusions(results: Values) -> Picture | None:
    """The student's videos by true and predicted class; None where none was scored."""
    counts = part_of(part_of(results, "student"), "metrics").get("confusion")
    if not counts:
        return None
    matrix = np.array(counts, dtype=float)
    right = int(np.trace(matrix))
    alt = f"Confusion matrix of {len(matrix)} classes: {right} of {int(matrix.sum())} videos right"
    caption = "The student's videos: true class down, predicted class across"
    return picture(partial(_matrix, matrix=matrix), alt, caption)


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
