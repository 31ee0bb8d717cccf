"""Sequences stored as image files, and label images as class ids."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidistill.data.clip import IGNORED, Image, LabelMap
from vidistill.data.image_files import open_picture, read_image, size_text
from vidistill.errors import UserError

LARGEST_ID = 2**16 - 1  # that a label image may hold


def consecutive_runs(images: Sequence[Path], pattern: str, *, max_step: int) -> list[list[Path]]:
    """`images` split wherever the next one is of another take, or its number is more than `max_step` later.

    images: in natural order. pattern: matches a whole stem; its groups are the take and the frame number. An image
    whose stem does not match is a run of its own.
    """
    runs: list[list[Path]] = []
    previous: tuple[str, int] | None = None
    for image in images:
        match = re.fullmatch(pattern, image.stem)
        place = (match[1], int(match[2])) if match else None
        if place and previous and previous[0] == place[0] and 0 < place[1] - previous[1] <= max_step:
            runs[-1].append(image)
        else:
            runs.append([image])
        previous = place
    return runs


def read_channel(path: Path, *, what: str = "a label image") -> NDArray[Any]:
    """(H, W) the stored values of a picture with one channel, or with several equal ones, as some programs save it.

    Of a palette its indices; 1 bit as 0 and 1. Errors: UserError where it cannot be read, or has colours.
    """
    picture = open_picture(path, what=what, lossless=True)
    stored = np.asarray(picture)
    if stored.dtype == bool:  # as bool it would index a table as a mask
        stored = stored.astype(np.uint8)
    if picture.mode.endswith(("A", "a")):  # LA, PA, RGBA
        if stored[..., -1].min() < 255:
            raise UserError(f"{path}: {what} must be opaque; save it without transparency, every pixel with its value")
        stored = stored[..., :-1]
    if stored.ndim == 3:
        if (stored != stored[..., :1]).any():
            raise UserError(
                f"{path}: {what} must have one channel, got the colours of shape {stored.shape}; store class ids, or a "
                "palette of them"
            )
        stored = stored[..., 0]
    return stored


def read_labels(path: Path, known: Mapping[int, int]) -> LabelMap:
    """(H, W) class ids of a label image. known: from the file's ids to ours (255 to ignore); others are an error."""
    stored = read_channel(path)
    if stored.dtype.kind != "u":
        values = np.unique(stored)
        wrong = ~((values >= 0) & (values <= LARGEST_ID) & (values == np.rint(values)))  # NaN is neither
        if wrong.any():
            shown = ", ".join(f"{value:g}" for value in values[wrong][:3])
            raise UserError(
                f"{path}: a label image must have whole ids from 0 to {LARGEST_ID}, got {shown}; correct it"
            )
    ids = stored if stored.dtype.kind == "u" else stored.astype(np.uint16)
    # (largest id + 1,) from the file's id to ours, -1 where unknown
    table = np.full(int(ids.max()) + 1, -1, dtype=np.int16)
    for source, target in known.items():
        if source < len(table):
            table[source] = target
    labels = table[ids]
    if labels.min() < 0:
        unknown = sorted(set(np.unique(ids[labels < 0]).tolist()))[:5]
        raise UserError(f"{path}: the mask has ids {unknown}, expected only {sorted(known)[:40]}; correct the mask")
    return labels.astype(np.uint8)


@dataclass(frozen=True)
class ImageSequence:
    """Frames as image files in order. label_paths: one per frame, None where a frame has no label.

    label_ids: from the ids in label images to ours. missing_labels: label images that the layout promises but that do
    not exist; `problems` names them.
    """

    name: str
    image_paths: Sequence[Path]
    label_paths: Sequence[Path | None] = ()
    label_ids: Mapping[int, int] = field(default_factory=dict)
    missing_labels: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.image_paths)

    def image(self, index: int) -> Image:
        return read_image(self.image_paths[index])

    def images(self) -> Iterator[Image]:
        return (read_image(path) for path in self.image_paths)

    def labelled(self) -> Sequence[int]:
        return [i for i, path in enumerate(self.label_paths) if path is not None]

    def labels(self, index: int) -> LabelMap | None:
        path = self.label_paths[index] if self.label_paths else None
        return None if path is None else read_labels(path, self.label_ids)

    def problems(self) -> list[str]:
        problems = [f"{path}: label image not found, so its frame is unlabelled" for path in self.missing_labels]
        first_size: tuple[int, ...] | None = None
        for index, path in enumerate(self.image_paths):
            image, labels = (_read(reader, index, problems) for reader in (self.image, self.labels))
            size = None if image is None else image.shape[:2]
            first_size = first_size or size
            if size and first_size and size != first_size:
                problems.append(f"{path}: is {size_text(size)}, expected {size_text(first_size)} as the first frame")
            if size and labels is not None and labels.shape != size:
                expected = f"expected {size_text(size)} as its frame"
                problems.append(f"{self.label_paths[index]}: the mask is {size_text(labels.shape)}, {expected}")
        return problems


def labelled_sequence(
    name: str, images: Sequence[Path], label_paths: Sequence[Path], label_ids: Mapping[int, int]
) -> ImageSequence:
    """A sequence whose layout promises a label image for every frame, with those that exist."""
    present = [path if path.exists() else None for path in label_paths]
    missing = [path for path, existing in zip(label_paths, present, strict=True) if existing is None]
    return ImageSequence(name, images, present, label_ids, missing)


def _read(reader: Callable[[int], Image | LabelMap | None], index: int, problems: list[str]) -> Image | LabelMap | None:
    """The result of `reader`; None where it fails, with the reason added to `problems`."""
    try:
        return reader(index)
    except UserError as error:
        problems.append(str(error))
        return None


def train_ids(num_classes: int, *, ignored: Sequence[int] = (IGNORED,)) -> dict[int, int]:
    """`label_ids` of label images that store train ids: 0…num_classes-1 stay, `ignored` become 255.

    Errors: UserError for more classes than a label map of 8 bits has ids for.
    """
    if num_classes > IGNORED:
        raise UserError(f"label maps can have at most {IGNORED} classes, got {num_classes}; leave some out")
    return {i: i for i in range(num_classes)} | dict.fromkeys(ignored, IGNORED)
