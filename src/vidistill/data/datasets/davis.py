"""DAVIS 2016 and 2017 at 480p: objects against their background (Perazzi et al. 2016, Pont-Tuset et al. 2017)."""

from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.image_files import images_in, natural_key
from vidistill.data.sequences.images import ImageSequence, labelled_sequence
from vidistill.errors import UserError, nearest

CLASS_NAMES = ("background", "object")
PALETTE = ((0, 0, 0), (236, 95, 103))
SPLIT_FOLDERS = ("480p", "2017")  # of ImageSets: in the release of 2016, and of 2017
OBJECT_IDS = {0: 0} | dict.fromkeys(range(1, 256), 1)  # 0/255 masks, and the object ids of palette masks


def davis(root: str | Path, *, split: str | None = None, sequences: list[str] | None = None) -> VideoDataset:
    """The sequences of `JPEGImages/480p`, with `Annotations/480p` as background and object, whichever object it is.

    split: a list in `ImageSets` (train, val, …), None for all there is. sequences: only these.
    Errors: no frames; a split without its list; a sequence that is not there.
    """
    images = Path(root) / "JPEGImages" / "480p"
    if not images.is_dir():
        raise UserError(f"{images}: there is no such folder; DAVIS's root holds JPEGImages/480p and Annotations/480p")
    names = sorted((p.name for p in images.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)
    if split is not None:
        names = _chosen(_split_names(Path(root), split), names, where=f"split '{split}' of {root}")
    if sequences is not None:
        names = _chosen(sequences, names, where="sequences")
    if not names:
        raise UserError(f"{images}: there are no sequences to take from it; it holds one folder of frames a sequence")
    return VideoDataset("davis", [_sequence(Path(root), name) for name in names], CLASS_NAMES, PALETTE)


def _sequence(root: Path, name: str) -> ImageSequence:
    folder = root / "JPEGImages" / "480p" / name
    images = images_in(folder)
    if not images:
        raise UserError(f"{folder}: there are no frames in it; copy the sequence again or take the folder out")
    masks = [root / "Annotations" / "480p" / name / f"{image.stem}.png" for image in images]
    return labelled_sequence(name, images, masks, OBJECT_IDS)


def _split_names(root: Path, split: str) -> list[str]:
    """The sequences of a split's list: one a line, or as in 2016 the frame and mask of one, which repeats it."""
    lists = [root / "ImageSets" / folder / f"{split}.txt" for folder in SPLIT_FOLDERS]
    found = next((path for path in lists if path.is_file()), None)
    if found is None:
        there = sorted(p.stem for folder in SPLIT_FOLDERS for p in (root / "ImageSets" / folder).glob("*.txt"))
        hint = nearest(split, there) if there else "without ImageSets leave split out, or name the sequences"
        raise UserError(f"{lists[-1]}: there is no such list of the split '{split}'; {hint}")
    entries = [line.split()[0] for line in found.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))


def _chosen(wanted: list[str], present: list[str], *, where: str) -> list[str]:
    for name in wanted:
        if name not in present:
            raise UserError(f"{where}: there is no sequence '{name}'; {nearest(name, present)}")
    return [name for name in present if name in wanted]
