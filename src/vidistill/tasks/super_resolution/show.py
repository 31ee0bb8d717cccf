"""How super-resolution looks: the large frame on a stream, crops side by side, a frame before and after on the page."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image
from vidistill.files import atomic_path
from vidistill.ops.draw import caption
from vidistill.report.figures import image_uri
from vidistill.report.page import StripRow, slider, strip_table
from vidistill.tasks.contract import Look, Pictures, StreamOutput
from vidistill.tasks.super_resolution.score import HighFrame

BICUBIC, TRUTH = "bicubic", "truth"
STRIP_FRAMES = 3
CROP = 128  # pixels, side of a crop


class SuperResolutionLook(Look):
    """The large frame itself; in words its size."""

    def draw(self, output: StreamOutput) -> Image:
        return output.prediction

    def describe(self, output: StreamOutput) -> Values:
        height, width = output.prediction.shape[:2]
        return {"size": [width, height]}


class SuperResolutionPictures(Pictures[HighFrame]):
    """Panels of every network and the truth; crops of a few frames for the page, `crops.npz`.

    In the file: names (columns,), frames (rows,) and crops (rows, columns, h, w, 3), where bicubic enlargement is
    farthest from the truth; before and after, a whole frame by bicubic enlargement and by the student.
    """

    def __init__(self, *, length: int) -> None:
        self._chosen = set(np.linspace(0, length - 1, STRIP_FRAMES).astype(int).tolist())
        self._kept: list[tuple[int, dict[str, Image]]] = []

    def panel(self, truth: HighFrame, outputs: dict[str, StreamOutput]) -> Image:
        """The networks and the truth in rows of two."""
        names = [name for name in (BICUBIC, "student", "teacher") if name in outputs]
        images = {name: outputs[name].prediction for name in names} | {TRUTH: truth.high}
        index = outputs["student"].index
        if index in self._chosen:
            self._kept.append((index, images))
        tiles = [caption(image, name) for name, image in images.items()]
        tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
        return np.vstack([np.hstack(tiles[i : i + 2]) for i in range(0, len(tiles), 2)])

    def save(self, folder: Path) -> None:
        middle = self._kept[len(self._kept) // 2][1]
        with atomic_path(folder / "crops.npz") as temporary:
            np.savez_compressed(
                temporary,
                names=np.array(list(middle)),
                frames=np.array([index for index, _ in self._kept]),
                crops=np.stack([_crops(images) for _, images in self._kept]),
                before=middle[BICUBIC],
                after=middle["student"],
            )


def _crops(images: dict[str, Image]) -> NDArray[np.uint8]:
    """(columns, h, w, 3) squares at one place: where bicubic enlargement errs most."""
    error = np.abs(images[BICUBIC].astype(np.float32) - images[TRUTH]).mean(axis=-1)
    height, width = (min(CROP, length) for length in error.shape)
    means = cv2.blur(error, (width, height), anchor=(0, 0))
    inside = means[: error.shape[0] - height + 1, : error.shape[1] - width + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return np.stack([image[top : top + height, left : left + width] for image in images.values()])


def read_crops(path: Path) -> str:
    """The page's part from a crops.npz: a row for each frame, and two whole frames under a slider."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    names = [str(name) for name in arrays["names"]]
    rows = [
        StripRow(f"frame {frame}", {name: image_uri(crop, "png") for name, crop in zip(names, crops, strict=True)})
        for frame, crops in zip(arrays["frames"], arrays["crops"], strict=True)
    ]
    before, after = (image_uri(arrays[name], "png") for name in ("before", "after"))
    return strip_table(rows) + slider(("bicubic enlargement", before), ("the student", after))
