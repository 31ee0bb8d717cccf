"""How the predictions of each task are shown: drawn on the frame, and in plain values."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vidistill.data.clip import IGNORED, Image
from vidistill.data.sequences.boxes import Boxes
from vidistill.ops.draw import caption, draw_boxes, overlay, palette_of
from vidistill.stream.stream import StreamOutput
from vidistill.students.card import Card

MOST_NAMED = 5  # classes of a recognition in a line
CONFIDENT = 0.5  # the score from which a box is drawn


class Look(Protocol):
    """How a task's predictions are shown. images: what they are as image files, "masks" or "frames"; "" for none.

    restores: whether the video that is drawn stands for the one that came in, and takes its sound and times.
    boxes: whether predictions are boxes, which have file formats of their own.
    """

    images: ClassVar[str]
    restores: ClassVar[bool]
    boxes: ClassVar[bool]

    def draw(self, output: StreamOutput) -> Image:
        """The frame with the prediction on it."""
        ...

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        """The prediction in plain values."""
        ...


class SegmentationLook:
    """Classes as colours; in words each class's share of the frame."""

    images: ClassVar = "masks"
    restores: ClassVar = False
    boxes: ClassVar = False

    def __init__(self, card: Card) -> None:
        self.class_names = card.class_names
        self.palette = palette_of(len(card.class_names) or 255, card.palette)

    def draw(self, output: StreamOutput) -> Image:
        what = "key" if output.is_key_frame else "delta"
        picture = overlay(output.image, output.prediction, self.palette)
        return caption(picture, f"{what} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        ids, counts = np.unique(output.prediction, return_counts=True)
        size = output.prediction.size
        shares = {name_of(self.class_names, int(i)): round(int(n) / size, 6) for i, n in zip(ids, counts, strict=True)}
        return {"shares": shares}


class RecognitionLook:
    """The likeliest class, in words the likeliest few."""

    images: ClassVar = ""
    restores: ClassVar = False
    boxes: ClassVar = False

    def __init__(self, card: Card) -> None:
        self.class_names = card.class_names

    def draw(self, output: StreamOutput) -> Image:
        best = int(output.prediction.argmax())
        name = name_of(self.class_names, best)
        return caption(output.image, f"{name} {output.prediction[best]:.0%}, {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        order = np.argsort(-output.prediction, kind="stable")[:MOST_NAMED]
        return {"classes": {name_of(self.class_names, int(i)): round(float(output.prediction[i]), 6) for i in order}}


class SuperResolutionLook:
    """The large frame itself; in words its size."""

    images: ClassVar = "frames"
    restores: ClassVar = True
    boxes: ClassVar = False

    def __init__(self, card: Card) -> None:
        pass

    def draw(self, output: StreamOutput) -> Image:
        return output.prediction

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        height, width = output.prediction.shape[:2]
        return {"size": [width, height]}


class DetectionLook:
    """Boxes in their classes' colours, the confident ones; in words all of them."""

    images: ClassVar = ""
    restores: ClassVar = False
    boxes: ClassVar = True

    def __init__(self, card: Card) -> None:
        self.class_names = card.class_names
        self.palette = palette_of(len(card.class_names) or 255, card.palette)

    def draw(self, output: StreamOutput) -> Image:
        picture = draw_detections(output.image, Boxes.of_rows(output.prediction), self.class_names, self.palette)
        return caption(picture, f"{'key' if output.is_key_frame else 'delta'} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        found = []
        for *box, label, score in output.prediction.tolist():
            name = name_of(self.class_names, int(label))
            found.append({"class": name, "score": round(score, 6), "box": [round(edge, 2) for edge in box]})
        return {"boxes": found}


def draw_detections(
    image: Image, boxes: Boxes, class_names: Sequence[str], palette: NDArray[np.uint8], *, least: float = CONFIDENT
) -> Image:
    """The frame with its boxes, class names and scores; boxes of a score below `least` are left out.

    palette: (256, 3) as `palette_of`; ids from 255 on, of which the first is black there, begin it anew.
    """
    if boxes.scores is not None:
        boxes = boxes.chosen(boxes.scores >= least)
    scores = [""] * len(boxes) if boxes.scores is None else [f" {score:.2f}" for score in boxes.scores.tolist()]
    texts = [name_of(class_names, k) + score for k, score in zip(boxes.labels.tolist(), scores, strict=True)]
    return draw_boxes(image, boxes.xyxy, texts, palette[boxes.labels % IGNORED])


def name_of(class_names: Sequence[str], class_id: int) -> str:
    """The class's name, its number where it has none."""
    return class_names[class_id] if class_id < len(class_names) else str(class_id)
