"""CamVid as `split/*.jpg|png` with label images of the same name in `splitannot/` (Brostow et al. 2009)."""

from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.image_files import images_in
from vidistill.data.sequences.images import ImageSequence, consecutive_runs, ids, labelled_sequence
from vidistill.errors import UserError

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
VOID = 11
CONSECUTIVE = 2  # frames of the 30 fps drive between neighbours at 15 Hz


def camvid(root: str | Path, *, split: str = "train") -> VideoDataset:
    """The split's drives: frames at most 1/15 s apart form one sequence, all others are stills.

    Frames are named sequence_frame at 30 fps. 11 classes, 11 (void) ignored. A frame without a label image stays,
    unlabelled. Errors: no such split; no frames in it.
    """
    folder = Path(root) / split
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; CamVid's root holds train, trainannot, val, valannot")
    images = images_in(folder)
    if not images:
        raise UserError(f"{folder}: there are no frames in it")
    runs = consecutive_runs(images, r"(.+?)_[a-zA-Z]*(\d+)", max_step=CONSECUTIVE)
    sequences = [_sequence(run, Path(root) / f"{split}annot") for run in runs]
    return VideoDataset("camvid", sequences, CLASS_NAMES, PALETTE)


def _sequence(images: list[Path], annotations: Path) -> ImageSequence:
    labels = [annotations / f"{image.stem}.png" for image in images]
    known = ids(len(CLASS_NAMES), ignored=(VOID, 255))
    return labelled_sequence(images[0].stem, images, labels, known)
