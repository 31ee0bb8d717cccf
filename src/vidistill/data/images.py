"""Sequences stored as image files, with label images beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from vidistill.data.clip import IGNORED, Image, LabelMap
from vidistill.data.video import read_image
from vidistill.errors import UserError


def read_labels(path: Path, known: Mapping[int, int]) -> LabelMap:
    """A label image as class ids: `known` maps the file's ids to ours (255 to ignore); any other is an error."""
    try:
        with PillowImage.open(path) as file:
            stored = np.asarray(file)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: the label image cannot be read ({error}); replace it") from error
    if stored.ndim != 2:
        raise UserError(f"{path}: a label image must have one channel, this one has shape {stored.shape}")
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
    """Frames as image files in order. label_paths: one a frame, None where a frame has no label."""

    name: str
    image_paths: Sequence[Path]
    label_paths: Sequence[Path | None] = ()
    label_ids: Mapping[int, int] = field(default_factory=dict)

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
        found = []
        first_size: tuple[int, ...] | None = None
        for index, path in enumerate(self.image_paths):
            try:
                size = self.image(index).shape[:2]
                first_size = first_size or size
                if size != first_size:
                    found.append(f"{path}: is {_size(size)}, the sequence began with {_size(first_size)}")
                labels = self.labels(index)
                if labels is not None and labels.shape != size:
                    found.append(f"{self.label_paths[index]}: the mask is {_size(labels.shape)}, its frame {_size(size)}")
            except UserError as error:
                found.append(str(error))
        return found


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def ids(num_classes: int, *, ignored: Sequence[int] = (IGNORED,)) -> dict[int, int]:
    """The mapping of label images that store train ids: 0…num_classes-1 as they are, `ignored` to 255."""
    return {i: i for i in range(num_classes)} | {i: IGNORED for i in ignored}
