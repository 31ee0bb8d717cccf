"""How segmentations look: on a stream, in a run's pictures, on its page, and as label maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import IGNORED, Image
from vidistill.files import atomic_path, json_text
from vidistill.ops.draw import caption, difference, overlay
from vidistill.report.figures import image_uri
from vidistill.report.page import StripRow, distance_title, strip_table
from vidistill.tasks.contract import (
    Look,
    Naming,
    Pictures,
    Prediction,
    StreamOutput,
    key_or_distance,
    strip_indices,
)
from vidistill.tasks.label_images import LabelImageFolder
from vidistill.tasks.segmentation.score import FULL, SegmentationTruth, hard

DIFFERENCE = "#dc1e1e"
BACKGROUND, FOREGROUND = "background", "foreground"  # of a binary task without names of its own
BINARY_PALETTE = ((0, 0, 0), (0, 190, 255))


@dataclass(frozen=True)
class Paint:
    """How predictions become colours. Of a binary task the foreground alone is painted, as strongly as it is sure."""

    naming: Naming
    is_binary: bool = False
    is_soft: bool = False

    def __call__(self, image: Image, prediction: Prediction) -> Image:
        """The frame with the prediction over it."""
        if self.is_soft:
            foreground = np.ones_like(prediction)
            return overlay(image, foreground, self.naming.colours, opacity=prediction.astype(np.float32) / FULL)
        opacity = (prediction != 0).astype(np.float32) if self.is_binary else None
        return overlay(image, prediction, self.naming.colours, opacity=opacity)

    def ids(self, prediction: Prediction) -> Prediction:
        """(H, W) class ids."""
        return hard(prediction) if self.is_soft else prediction


class SegmentationLook(Look):
    """Classes as colours over the frame; in words each class's share of the frame."""

    def __init__(self, paint: Paint) -> None:
        self.paint = paint

    def draw(self, output: StreamOutput) -> Image:
        kind = "key" if output.is_key_frame else "delta"
        return caption(self.paint(output.image, output.prediction), f"{kind} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> Values:
        ids, counts = np.unique(self.paint.ids(output.prediction), return_counts=True)
        size, naming = output.prediction.size, self.paint.naming
        shares = {naming.name(int(i)): round(int(n) / size, 6) for i, n in zip(ids, counts, strict=True)}
        if not self.paint.is_soft:
            return {"shares": shares}
        return {"shares": shares, "probability": round(float(output.prediction.mean()) / FULL, 6)}

    def image(self, output: StreamOutput) -> NDArray[np.generic]:
        """Class ids; of a binary task 0 and 255, as masks are, or all levels between them."""
        if self.paint.is_soft or not self.paint.is_binary:
            return output.prediction
        return np.where(output.prediction == 1, FULL, 0).astype(np.uint8)


class SegmentationPictures(Pictures[SegmentationTruth]):
    """Panels of input, teacher, student and their difference; a strip of a few frames for the page, `strip.npz`."""

    def __init__(self, paint: Paint, num_ids: int, *, interval: int, length: int) -> None:
        self.paint, self.num_ids, self.interval = paint, num_ids, interval
        self._chosen = strip_indices(length, interval)
        self._strip: list[tuple[int, Image, dict[str, Prediction]]] = []

    def panel(self, truth: SegmentationTruth, outputs: dict[str, StreamOutput]) -> Image:
        image, index = truth.image, outputs["student"].index
        predictions = {name: output.prediction for name, output in outputs.items()}
        if index in self._chosen:
            self._strip.append((index % self.interval, image, predictions))
        titles = {"teacher": "teacher", "student": f"student, {key_or_distance(index % self.interval)}"}
        tiles = [caption(image, "input")]
        tiles += [
            caption(self.paint(image, predictions[name]), title)
            for name, title in titles.items()
            if name in predictions
        ]
        if "teacher" not in predictions:
            return np.hstack(tiles)
        theirs, ours = (self.paint.ids(predictions[name]) for name in ("teacher", "student"))
        tiles.append(caption(difference(image, theirs, ours), f"disagree {np.mean(theirs != ours):.1%}"))
        return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])

    def save(self, folder: Path) -> None:
        names = list(self._strip[0][2])
        masks = {name: np.stack([predictions[name] for _, _, predictions in self._strip]) for name in names}
        arrays: dict[str, NDArray[np.generic]] = {
            "frames": np.stack([image for _, image, _ in self._strip]),
            "distances": np.array([distance for distance, _, _ in self._strip]),
            "palette": self.paint.naming.colours[: self.num_ids],
            "class_names": np.array(self.paint.naming.names(self.num_ids)),
            **{name: self.paint.ids(mask) for name, mask in masks.items()},
        }
        if self.paint.is_soft:
            arrays |= {f"{name}_soft": mask for name, mask in masks.items()}
        with atomic_path(folder / "strip.npz") as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_strip(path: Path) -> str:
    """The page's table from a strip.npz: a row for each frame, a legend of the classes that occur."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    labels = {name: arrays[name] for name in ("teacher", "student") if name in arrays}
    soft_masks = {name: arrays[f"{name}_soft"] for name in labels if f"{name}_soft" in arrays}
    palette = np.zeros((256, 3), np.uint8)
    known = arrays.get("palette", np.zeros((0, 3), np.uint8))
    palette[: len(known)] = known
    rows = []
    for i, frame in enumerate(arrays["frames"]):
        maps = {name: predictions[i] for name, predictions in labels.items()}
        colours = {name: palette[ids] for name, ids in maps.items()}
        colours |= {name: _mixed(palette, soft[i]) for name, soft in soft_masks.items()}
        images = {"input": image_uri(frame, "jpeg")} | {n: image_uri(picture, "png") for n, picture in colours.items()}
        note = ""
        if len(maps) == 2:
            differs = maps["teacher"] != maps["student"]
            is_something = len(np.unique(list(maps.values()))) > 1
            note = f"agreement {1 - differs.mean():.3f}" if is_something else "one class in both"
            grey = (0.5 * frame.mean(axis=-1, keepdims=True) + 96).astype(np.uint8)  # pale, so that red stands out
            red = np.array(bytearray.fromhex(DIFFERENCE[1:]), np.uint8)
            images["difference"] = image_uri(np.where(differs[..., None], red, grey), "jpeg")
        distance = int(arrays["distances"][i]) if "distances" in arrays else None
        rows.append(StripRow(distance_title(distance), images, note))
    occurring = {int(k) for maps in labels.values() for k in np.unique(maps)}
    names = arrays.get("class_names", np.zeros(0, str))
    legend = [(str(name), f"#{bytes(palette[k]).hex()}") for k, name in enumerate(names) if k in occurring]
    if rows and "difference" in rows[0].images:
        legend.append(("difference: another class than the teacher's", DIFFERENCE))
    return strip_table(rows, legend)


def _mixed(palette: NDArray[np.uint8], soft: Prediction) -> Image:
    """(H, W, 3): the colours of background and foreground, mixed as a soft mask (H, W) says."""
    share = soft[..., None].astype(np.float32) / FULL
    return np.rint((1 - share) * palette[0] + share * palette[1]).astype(np.uint8)


class LabelMapFolder(LabelImageFolder):
    """A new folder that `data.label_maps` reads: a folder for each video with its frames and class ids as PNG.

    Where a single class is kept, all others are its background.

    Args:
        kept: the ids of the classes to keep by name, in their new order.
        num_ids: of the predictions.
    """

    def __init__(self, out: Path, kept: Mapping[str, int], num_ids: int) -> None:
        super().__init__(out)
        self._names = list(kept)
        self._table = np.full(256, IGNORED, np.uint8)
        if len(kept) == 1:
            self._names.insert(0, BACKGROUND if self._names[0] != BACKGROUND else "other")
            self._table[:num_ids] = 0
            self._table[list(kept.values())] = 1
        else:
            self._table[list(kept.values())] = np.arange(len(kept))

    def pixels(self, prediction: Prediction) -> NDArray[np.uint8]:
        return self._table[prediction]

    def prepare(self, folder: Path) -> None:
        # with their values, so that a folder in which the second class never occurs is not taken for masks of 0 and 255
        classes = {name: value for value, name in enumerate(self._names)} if len(self._names) == 2 else self._names
        (folder / "classes.json").write_text(json_text(classes), encoding="utf-8")
