"""Folders of frames and label images, as `vidistill label` writes them."""

from pathlib import Path

from vidistill.config import Pixels
from vidistill.data.class_names import read_class_names
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.image_files import images_in
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.images import labelled_sequence, train_ids
from vidistill.errors import UserError


def label_maps(root: str | Path, *, height: Pixels | None = None) -> VideoDataset:
    """Folders with `frames/` and `labels/`: PNG of class ids with the names of the frames; 255 is ignored.

    Args:
        root: Folder that holds these folders, and `classes.json`, the list of class names.
        height: Resizes frames and masks to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per folder, with masks.

    Raises:
        UserError: If there is no such folder, or `classes.json` cannot be read.
    """
    root = Path(root)
    check_height(height)
    names = read_class_names(root / "classes.json")
    sequences: list[FrameSequence] = []
    for folder in sorted(path.parent for path in root.glob("*/frames")):
        images = images_in(folder / "frames")
        labels = [folder / "labels" / f"{image.stem}.png" for image in images]
        sequence = labelled_sequence(folder.name, images, labels, train_ids(len(names)))
        sequences.append(sequence if height is None else ResizedSequence(sequence, height))
    if not sequences:
        raise UserError(f"{root}: has no folders with frames/ and labels/; give the output folder of vidistill label")
    return VideoDataset(root.name or "label_maps", sequences, names)
