"""Folders of frames and label images, as `vidistill label` writes them."""

from pathlib import Path

from vidistill.data.class_names import read_class_names
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.image_files import images_in
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.images import ids, labelled_sequence
from vidistill.errors import UserError


def label_maps(root: str | Path, *, height: int | None = None) -> VideoDataset:
    """Every folder in `root` that holds `frames/` and `labels/`, PNG of class ids with the frames' names, 255 ignored.

    The names of the classes are the list in `classes.json`. height: resizes all frames to that height.
    Errors: UserError where there are none.
    """
    root = Path(root)
    check_height(height)
    names = read_class_names(root / "classes.json")
    sequences: list[FrameSequence] = []
    for folder in sorted(path.parent for path in root.glob("*/frames")):
        images = images_in(folder / "frames")
        labels = [folder / "labels" / f"{image.stem}.png" for image in images]
        sequence = labelled_sequence(folder.name, images, labels, ids(len(names)))
        sequences.append(sequence if height is None else ResizedSequence(sequence, height))
    if not sequences:
        raise UserError(f"{root}: there are no folders with frames/ and labels/ in it; give what vidistill label wrote")
    return VideoDataset(root.name or "label_maps", sequences, names)
