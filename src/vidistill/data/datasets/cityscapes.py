"""Cityscapes video: snippets of 30 frames at 17 Hz, the 20th of each labelled (Cordts et al. 2016)."""

from pathlib import Path

from vidistill.data.clip import IGNORED, VideoDataset
from vidistill.data.image_files import folders_in, images_in
from vidistill.data.sequences.images import ImageSequence, consecutive_runs, train_ids
from vidistill.errors import UserError

CLASS_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
# Of the label ids 0…33 these have a class, in the order of CLASS_NAMES (cityscapesScripts, labels.py).
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_LABEL_IDS = 34
LABELLED_FRAME = 19  # of 0…29

TRAIN_ID_MAP = train_ids(len(CLASS_NAMES))
# 255: licence plates, whose id is -1
LABEL_ID_MAP = dict.fromkeys((*range(NUM_LABEL_IDS), 255), IGNORED) | {label: i for i, label in enumerate(LABEL_IDS)}
LABEL_KINDS = (("labelTrainIds", TRAIN_ID_MAP), ("labelIds", LABEL_ID_MAP))  # the first kind that exists is read


def cityscapes(root: str | Path, *, split: str = "train") -> VideoDataset:
    """The snippets of Cityscapes in `leftImg8bit_sequence`, or its stills in `leftImg8bit` if there are no snippets.

    Frames of one city and sequence with consecutive numbers form a snippet.

    Args:
        root: Folder that holds leftImg8bit_sequence or leftImg8bit, and gtFine.
        split: "train", "val" or "test".

    Returns:
        Sequences with masks of the 19 evaluated classes; all other ids are ignored.

    Raises:
        UserError: If the split's folder does not exist or holds no frames.
    """
    folders = [Path(root) / name / split for name in ("leftImg8bit_sequence", "leftImg8bit")]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise UserError(
            f"{folders[0]}: folder not found, nor {folders[1]}; Cityscapes' root holds leftImg8bit_sequence or "
            "leftImg8bit, and gtFine, each with train, val and test"
        )
    images = [image for city in folders_in(folder) for image in images_in(city) if image.stem.endswith("_leftImg8bit")]
    if not images:
        raise UserError(
            f"{folder}: has no frames named city_sequence_frame_leftImg8bit in its cities' folders; copy them there"
        )
    runs = consecutive_runs(images, r"(.+)_(\d+)_leftImg8bit", max_step=1)
    labelled_frame = LABELLED_FRAME if folder == folders[0] else 0
    annotations = Path(root) / "gtFine" / split
    sequences = [_snippet(run, annotations, labelled_frame=labelled_frame) for run in runs]
    return VideoDataset("cityscapes", sequences, CLASS_NAMES, PALETTE)


def _snippet(images: list[Path], annotations: Path, *, labelled_frame: int) -> ImageSequence:
    """The frames with the label images that exist; if none exists, that of `labelled_frame` counts as missing."""
    stems = [image.stem.removesuffix("_leftImg8bit") for image in images]
    for kind, label_ids in LABEL_KINDS:
        paths = [annotations / images[0].parent.name / f"{stem}_gtFine_{kind}.png" for stem in stems]
        labels = [path if path.exists() else None for path in paths]
        if any(labels):
            return ImageSequence(stems[0], images, labels, label_ids)
    return ImageSequence(stems[0], images, labels, label_ids, paths[labelled_frame : labelled_frame + 1])
