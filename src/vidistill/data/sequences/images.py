"""Sequences stored as image files, with label images beside them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from vidistill.data.clip import IGNORED, Image, LabelMap
from vidistill.data.image_files import read_image
from vidistill.errors import UserError


def consecutive_runs(images: Sequence[Path], pattern: str, *, max_step: int) -> list[list[Path]]:
    """`images` cut wherever the next is not of the same take or its number is more than `max_step` later.

    images: in natural order. pattern: of the whole stem; its groups are the take and the frame number. An image of
    another name is a run of its own.
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


def read_labels(path: Path, known: Mapping[int, int]) -> LabelMap:
    """A label image as class ids: `known` maps the file's ids to ours (255 to ignore); any other is an error."""
    try:
        with PillowImage.open(path) as file:
            stored = np.asarray(file)
    except (OSError, ValueError, SyntaxError, EOFError, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{path}: the label image cannot be read ({error}); replace it") from error
    if stored.ndim != 2:
        raise UserError(f"{path}: a label image must have one channel, this one has shape {stored.shape}")
    if stored.dtype == bool:  # a PNG of one bit; as it is, it would index the table as a mask
        stored = stored.astype(np.uint8)
    table = np.full(int(stored.max(initial=0)) + 1, -1, dtype=np.int16)
    for source, target in known.items():
        if source < len(table):
            table[source] = target
    labels = table[stored]
    if labels.min(initial=0) < 0:
        unknown = sorted(set(np.unique(stored[labels < 0]).tolist()))[:5]
        raise UserError(f"{path}: the mask has unknown ids {unknown}; known are {sorted(known)[:40]}")
    return labels.astype(np.uint8)


@dataclass(frozen=True)
class ImageSequence:
    """Frames as image files in order. label_paths: one a frame, None where a frame has no label.

    missing_labels: label images that the layout promises and that are not there; `problems` names them.
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
        found = [f"{path}: there is no such label image, so its frame is unlabelled" for path in self.missing_labels]
        first_size: tuple[int, ...] | None = None
        for index, path in enumerate(self.image_paths):
            image, labels = (_read(reader, index, found) for reader in (self.image, self.labels))
            size = None if image is None else image.shape[:2]
            first_size = first_size or size
            if size and first_size and size != first_size:
                found.append(f"{path}: is {_size(size)}, the sequence began with {_size(first_size)}")
            if size and labels is not None and labels.shape != size:
                found.append(f"{self.label_paths[index]}: the mask is {_size(labels.shape)}, its frame {_size(size)}")
        return found


def labelled_sequence(
    name: str, images: Sequence[Path], label_paths: Sequence[Path], label_ids: Mapping[int, int]
) -> ImageSequence:
    """A sequence whose layout promises a label image for every frame, with those that are there."""
    present = [path if path.exists() else None for path in label_paths]
    missing = [path for path, there in zip(label_paths, present, strict=True) if there is None]
    return ImageSequence(name, images, present, label_ids, missing)


def _read(reader: Callable[[int], Image | LabelMap | None], index: int, found: list[str]) -> Image | LabelMap | None:
    """What `reader` gives; None where it fails, with the reason added to `found`."""
    try:
        return reader(index)
    except UserError as error:
        found.append(str(error))
        return None


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def ids(num_classes: int, *, ignored: Sequence[int] = (IGNORED,)) -> dict[int, int]:
    """The mapping of label images that store train ids: 0…num_classes-1 as they are, `ignored` to 255."""
    return {i: i for i in range(num_classes)} | dict.fromkeys(ignored, IGNORED)
