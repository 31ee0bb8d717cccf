"""How segmentations look: on a stream, in a run's pictures, on its page, and as label maps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image
from vidistill.files import atomic_path
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
from vidistill.tasks.segmentation.score import SegmentationTruth

DIFFERENCE = "#dc1e1e"


class SegmentationLook(Look):
    """Classes as colours over the frame; in words each class's share of the frame."""

    def __init__(self, naming: Naming) -> None:
        self.naming = naming

    def draw(self, output: StreamOutput) -> Image:
        kind = "key" if output.is_key_frame else "delta"
        picture = overlay(output.image, output.prediction, self.naming.colours)
        return caption(picture, f"{kind} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> Values:
        ids, counts = np.unique(output.prediction, return_counts=True)
        size = output.prediction.size
        return {"shares": {self.naming.name(int(i)): round(int(n) / size, 6) for i, n in zip(ids, counts, strict=True)}}


class SegmentationPictures(Pictures[SegmentationTruth]):
    """Panels of input, teacher, student and their difference; a strip of a few frames for the page, `strip.npz`."""

    def __init__(self, naming: Naming, num_classes: int, *, interval: int, length: int) -> None:
        self.naming, self.num_classes, self.interval = naming, num_classes, interval
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
            caption(overlay(image, predictions[name], self.naming.colours), title)
            for name, title in titles.items()
            if name in predictions
        ]
        if "teacher" not in predictions:
            return np.hstack(tiles)
        theirs, ours = predictions["teacher"], predictions["student"]
        tiles.append(caption(difference(image, theirs, ours), f"disagree {np.mean(theirs != ours):.1%}"))
        return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])

    def save(self, folder: Path) -> None:
        names = list(self._strip[0][2])
        with atomic_path(folder / "strip.npz") as temporary:
            np.savez_compressed(
                temporary,
                frames=np.stack([image for _, image, _ in self._strip]),
                distances=np.array([distance for distance, _, _ in self._strip]),
                palette=self.naming.colours[: self.num_classes],
                class_names=np.array(self.naming.names(self.num_classes)),
                **{name: np.stack([p[name] for _, _, p in self._strip]) for name in names},  # type: ignore[arg-type]
            )


def read_strip(path: Path) -> str:
    """The page's table from a strip.npz: a row for each frame, a legend of the classes that occur."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    labels = {name: arrays[name] for name in ("teacher", "student") if name in arrays}
    palette = np.zeros((256, 3), np.uint8)
    colours = arrays.get("palette", np.zeros((0, 3), np.uint8))
    palette[: len(colours)] = colours
    rows = []
    for i, frame in enumerate(arrays["frames"]):
        maps = {name: predictions[i] for name, predictions in labels.items()}
        images = {"input": image_uri(frame, "jpeg")} | {n: image_uri(palette[m], "png") for n, m in maps.items()}
        note = ""
        if len(maps) == 2:
            differs = maps["teacher"] != maps["student"]
            note = f"agreement {1 - differs.mean():.3f}"
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


class LabelMapFolder(LabelImageFolder):
    """A new folder that `data.label_maps` reads: a folder for each video with its frames and class ids as PNG."""

    def __init__(self, out: Path, kept: Mapping[str, int]) -> None:
        super().__init__(out)
        self._names = list(kept)
        self._table = np.full(256, 255, np.uint8)
        self._table[list(kept.values())] = np.arange(len(kept))

    def pixels(self, prediction: Prediction) -> NDArray[np.uint8]:
        return self._table[prediction]

    def __enter__(self) -> Self:
        super().__enter__()
        (self._folder / "classes.json").write_text(json.dumps(self._names), encoding="utf-8")
        return self
