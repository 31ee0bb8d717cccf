"""Folders of frames and label images, as `vidistill label` writes them."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from vidistill.config import Pixels
from vidistill.data.class_names import read_class_names
from vidistill.data.clip import IGNORED, FrameSequence, VideoDataset
from vidistill.data.foreign import read_json
from vidistill.data.image_files import images_in
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.images import labelled_sequence, read_channel, train_ids
from vidistill.errors import UserError

LOOKED_AT = 32  # label images, spread over the data set, that say whether two classes are 0 and 1 or 0 and 255
LARGEST = 65535  # that a label image holds


def label_maps(root: str | Path, *, height: Pixels | None = None) -> VideoDataset:
    """Folders with `frames/` and `labels/`: PNG of class ids with the names of the frames; 255 is ignored.

    Of two classes the label images may be masks of 0 and 255, as many tools write them. They are taken for masks where
    none of them has a 1 (of 32, spread over the folders); then a 1 is an error, and nothing is ignored.

    Args:
        root: Folder that holds these folders, and `classes.json`: the list of class names, or each name's value in the
            label images, `{"background": 0, "person": 255}`, which leaves nothing to be found out.
        height: Resizes frames and masks to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per folder, with masks.

    Raises:
        UserError: If there is no such folder, or `classes.json` cannot be read or has fewer than two classes.
    """
    root = Path(root)
    check_height(height)
    classes = root / "classes.json"
    values = _values(classes)
    names = read_class_names(classes) if values is None else tuple(values)
    folders = sorted(path.parent for path in root.glob("*/frames"))
    if not folders:
        raise UserError(f"{root}: has no folders with frames/ and labels/; give the output folder of vidistill label")
    if len(names) < 2:
        raise UserError(
            f"{classes}: must name two classes or more, got {list(names)}; name the background too, as in "
            '["background", "person"]'
        )
    images = [images_in(folder / "frames") for folder in folders]
    labels = [
        [folder / "labels" / f"{image.stem}.png" for image in frames]
        for folder, frames in zip(folders, images, strict=True)
    ]
    if values is not None:
        ids = {IGNORED: IGNORED} | {value: class_id for class_id, value in enumerate(values.values())}
    elif len(names) == 2 and _are_masks(list(chain(*labels))):
        ids = {0: 0, 255: 1}
    else:
        ids = train_ids(len(names))
    sequences: list[FrameSequence] = []
    for folder, frames, paths in zip(folders, images, labels, strict=True):
        sequence = labelled_sequence(folder.name, frames, paths, ids)
        sequences.append(sequence if height is None else ResizedSequence(sequence, height))
    return VideoDataset(root.name or "label_maps", sequences, names)


def _values(path: Path) -> dict[str, int] | None:
    """Each class's value in label images, from the smallest on; None where the file is a list of names, or unreadable.

    Errors: UserError where the values are not numbers of their own.
    """
    try:
        values = read_json(path, "names of classes", advice="correct the file")
    except UserError:
        return None
    if not isinstance(values, Mapping):
        return None
    known = [v for v in values.values() if isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= LARGEST]
    if len(set(known)) < len(values):
        raise UserError(
            f"{path}: must give each class a value of its own from 0 to {LARGEST}, got {dict(values)}; correct the file"
        )
    return dict(sorted(values.items(), key=lambda item: item[1]))


def _are_masks(paths: Sequence[Path]) -> bool:
    """Whether label images have 0 and 255 alone, and 255 at least once. Those that cannot be read say nothing."""
    has_full = False
    for path in paths[:: max(1, -(-len(paths) // LOOKED_AT))]:
        try:
            values = np.unique(read_channel(path)).tolist()
        except UserError:
            continue
        if not set(values) <= {0, IGNORED}:
            return False
        has_full = has_full or IGNORED in values
    return has_full
