"""How detections look: on a stream, in a run's pictures and on its page."""

from pathlib import Path

import numpy as np

from vidistill.config import Values
from vidistill.data.clip import IGNORED, Image
from vidistill.data.sequences.boxes import Boxes
from vidistill.files import atomic_path
from vidistill.ops.draw import caption, draw_boxes
from vidistill.report.figures import image_uri
from vidistill.report.page import StripRow, distance_title, strip_table
from vidistill.tasks.contract import Look, Naming, Pictures, StreamOutput, key_or_distance, strip_indices
from vidistill.tasks.detection.score import BoxedFrame

CONFIDENT = 0.5  # the score from which a box is drawn


class DetectionLook(Look):
    """Boxes in their classes' colours, the confident ones; in words all of them."""

    def __init__(self, naming: Naming) -> None:
        self.naming = naming

    def draw(self, output: StreamOutput) -> Image:
        picture = draw_detections(output.image, Boxes.of_rows(output.prediction), self.naming)
        return caption(picture, f"{'key' if output.is_key_frame else 'delta'} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> Values:
        boxes = [
            {
                "class": self.naming.name(int(label)),
                "score": round(score, 6),
                "box": [round(edge, 2) for edge in edges],
            }
            for *edges, label, score in output.prediction.tolist()
        ]
        return {"boxes": boxes}


def draw_detections(image: Image, boxes: Boxes, naming: Naming, *, least: float = CONFIDENT) -> Image:
    """The frame with its boxes, class names and scores; boxes of a score below `least` are left out.

    Class ids from 255 on, of which the first is black in the palette, begin it anew.
    """
    if boxes.scores is not None:
        boxes = boxes.chosen(boxes.scores >= least)
    scores = [""] * len(boxes) if boxes.scores is None else [f" {score:.2f}" for score in boxes.scores.tolist()]
    texts = [naming.name(label) + score for label, score in zip(boxes.labels.tolist(), scores, strict=True)]
    return draw_boxes(image, boxes.xyxy, texts, naming.colours[boxes.labels % IGNORED])


class DetectionPictures(Pictures[BoxedFrame]):
    """Panels of truth, teacher and student; a strip of a few of them for the page, `detections.npz`.

    In the file: names (columns,), distances (rows,) to the key frame and pictures (rows, columns, h, w, 3).
    """

    def __init__(self, naming: Naming, *, interval: int, length: int) -> None:
        self.naming, self.interval = naming, interval
        self._chosen = strip_indices(length, interval)
        self._rows: list[tuple[int, dict[str, Image]]] = []

    def panel(self, truth: BoxedFrame, outputs: dict[str, StreamOutput]) -> Image:
        index = outputs["student"].index
        shown = {} if truth.boxes is None else {"truth": truth.boxes}
        networks = [name for name in ("teacher", "student") if name in outputs]
        shown |= {name: Boxes.of_rows(np.asarray(outputs[name].prediction, np.float32)) for name in networks}
        pictures = {name: draw_detections(truth.image, boxes, self.naming) for name, boxes in shown.items()}
        if index in self._chosen:
            self._rows.append((index % self.interval, pictures))
        titles = {"student": f"student, {key_or_distance(index % self.interval)}"}
        return np.hstack([caption(picture, titles.get(name, name)) for name, picture in pictures.items()])

    def save(self, folder: Path) -> None:
        with atomic_path(folder / "detections.npz") as temporary:
            np.savez_compressed(
                temporary,
                names=np.array(list(self._rows[0][1])),
                distances=np.array([distance for distance, _ in self._rows]),
                pictures=np.stack([np.stack(list(pictures.values())) for _, pictures in self._rows]),
            )


def read_strip(path: Path) -> str:
    """The page's table from a detections.npz: frames with the boxes of each network on them."""
    with np.load(path, allow_pickle=False) as file:
        names, distances, pictures = (file[name] for name in ("names", "distances", "pictures"))
    rows = [
        StripRow(distance_title(int(distance)), {str(n): image_uri(p, "jpeg") for n, p in zip(names, row, strict=True)})
        for distance, row in zip(distances, pictures, strict=True)
    ]
    return strip_table(rows)
