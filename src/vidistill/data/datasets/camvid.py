"""CamVid as `split/*.jpg|png` with label images of the same name in `splitannot/` (Brostow et al. 2009)."""

from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.image_files import images_in
from vidistill.data.sequences.images import consecutive_runs, labelled_sequence, train_ids
from vidistill.errors import UserError

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
VOID = 11  # id in label images
CONSECUTIVE = 2  # frames of the 30 fps drive between neighbours at 15 Hz


def camvid(root: str | Path, *, split: str = "train") -> VideoDataset:
    """The drives of CamVid: frames at most 1/15 s apart form one sequence, all others are stills.

    Frames are named sequence_frame, numbered at 30 fps. A frame without a label image stays, unlabelled.

    Args:
        root: Folder that holds train, trainannot, val, valannot.
        split: Name of the folder of frames.

    Returns:
        Sequences with masks of 11 classes; id 11 (void) is ignored.

    Raises:
        UserError: If the split's folder does not exist or holds no frames.
    """
    folder = Path(root) / split
    if not folder.is_dir():
        raise UserError(f"{folder}: folder not found; CamVid's root holds train, trainannot, val, valannot")
    images = images_in(folder)
    if not images:
        raise UserError(f"{folder}: has no frames; copy them there or choose another split")
    label_ids = train_ids(len(CLASS_NAMES), ignored=(VOID, 255))
    sequences = []
    for run in consecutive_runs(images, r"(.+?)_[a-zA-Z]*(\d+)", max_step=CONSECUTIVE):
        label_paths = [Path(root) / f"{split}annot" / f"{image.stem}.png" for image in run]
        sequences.append(labelled_sequence(run[0].stem, run, label_paths, label_ids))
    return VideoDataset("camvid", sequences, CLASS_NAMES, PALETTE)
