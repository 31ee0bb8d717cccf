"""CamVid as `split/*.jpg|png` with label images of the same name in `splitannot/` (Brostow et al. 2009)."""

import re
from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.images import ImageSequence, ids
from vidistill.data.video import IMAGE_SUFFIXES, natural_key
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
    images = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
    if not images:
        raise UserError(f"{folder}: there are no frames in it")
    sequences = [_sequence(run, Path(root) / f"{split}annot") for run in _runs(images)]
    return VideoDataset("camvid", sequences, CLASS_NAMES, PALETTE)


def _sequence(images: list[Path], annotations: Path) -> ImageSequence:
    labels = [annotations / f"{image.stem}.png" for image in images]
    present = [label if label.exists() else None for label in labels]
    return ImageSequence(images[0].stem, images, present, ids(len(CLASS_NAMES), ignored=(VOID, 255)))


def _runs(images: list[Path]) -> list[list[Path]]:
    runs: list[list[Path]] = []
    previous: tuple[str, int] | None = None
    for image in images:
        match = re.fullmatch(r"(.+?)_[a-zA-Z]*(\d+)", image.stem)
        drive, frame = (match[1], int(match[2])) if match else (image.stem, 0)
        if previous and previous[0] == drive and 0 < frame - previous[1] <= CONSECUTIVE:
            runs[-1].append(image)
        else:
            runs.append([image])
        previous = (drive, frame)
    return runs
