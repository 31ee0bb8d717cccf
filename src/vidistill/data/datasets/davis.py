"""DAVIS 2016 and 2017 at 480p: objects against their background (Perazzi et al. 2016, Pont-Tuset et al. 2017)."""

from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.foreign import read_rows
from vidistill.data.image_files import folders_in, images_in
from vidistill.data.sampling import select_names
from vidistill.data.sequences.images import labelled_sequence
from vidistill.errors import UserError, nearest

CLASS_NAMES = ("background", "object")
PALETTE = ((0, 0, 0), (236, 95, 103))
SPLIT_FOLDERS = ("480p", "2017")  # in ImageSets: of the release of 2016, and of 2017
OBJECT_IDS = {0: 0} | dict.fromkeys(range(1, 256), 1)  # 0/255 masks, and the object ids of palette masks


def davis(root: str | Path, *, split: str | None = None, sequences: list[str] | None = None) -> VideoDataset:
    """The sequences of DAVIS 2016 or 2017 at 480p.

    Args:
        root: Folder that holds JPEGImages/480p, Annotations/480p and, for `split`, ImageSets.
        split: Name of a list in ImageSets, such as "train" or "val"; None takes all sequences.
        sequences: Names of the sequences to take; None takes all.

    Returns:
        Sequences with masks of two classes: background, and object, whichever object it is.

    Raises:
        UserError: If there are no frames, a split has no list, or a sequence does not exist.
    """
    images = Path(root) / "JPEGImages" / "480p"
    if not images.is_dir():
        raise UserError(f"{images}: folder not found; DAVIS's root holds JPEGImages/480p and Annotations/480p")
    names = [folder.name for folder in folders_in(images)]
    if split is not None:
        names = select_names(names, _split_names(Path(root), split), where=f"split '{split}' of {root}")
    if sequences is not None:
        names = select_names(names, sequences, where="sequences")
    if not names:
        raise UserError(f"{images}: has no sequences to take; it must hold one folder of frames for each sequence")
    videos = []
    for name in names:
        frames = images_in(images / name)
        if not frames:
            raise UserError(f"{images / name}: has no frames; copy the sequence again or remove the folder")
        masks = [Path(root) / "Annotations" / "480p" / name / f"{frame.stem}.png" for frame in frames]
        videos.append(labelled_sequence(name, frames, masks, OBJECT_IDS))
    return VideoDataset("davis", videos, CLASS_NAMES, PALETTE)


def _split_names(root: Path, split: str) -> list[str]:
    """The sequences of a split's list. Lines are sequences, or (2016) a frame and its mask, which repeats sequences."""
    lists = [root / "ImageSets" / folder / f"{split}.txt" for folder in SPLIT_FOLDERS]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        splits = sorted(p.stem for folder in SPLIT_FOLDERS for p in (root / "ImageSets" / folder).glob("*.txt"))
        advice = nearest(split, splits) if splits else "without ImageSets leave split out, or name the sequences"
        raise UserError(f"{lists[-1]}: list of the split '{split}' not found; {advice}")
    entries = [row.text.split()[0] for row in read_rows(path)]
    return list(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))
