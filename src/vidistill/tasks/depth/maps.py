"""Depth maps as 16-bit PNG, as KITTI stores them: metres × scale in whole numbers, 0 where depth is unknown."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Pixels, Positive
from vidistill.data.clip import FrameSequence, LabelMap, VideoDataset
from vidistill.data.image_files import images_in, open_picture
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError
from vidistill.tasks.contract import Prediction
from vidistill.tasks.label_images import LabelImageFolder

SCALE = 256.0  # of KITTI's files (Uhrig et al. 2017): steps of 4 mm, up to 256 m
LARGEST = 2**16 - 1


def to_png(depth: NDArray[np.floating], scale: float = SCALE) -> NDArray[np.uint16]:
    """(H, W) whole numbers of metres (H, W). What is known stays known: it is kept within 1…65535."""
    levels = np.rint(depth * scale).clip(1, LARGEST)
    return np.where(depth > 0, levels, 0).astype(np.uint16)


def read_depth(path: Path, scale: float) -> LabelMap:
    """(H, W) float32 metres of a depth map, 0 where unknown.

    Raises:
        UserError: it cannot be read, or has not one channel of 16 bits.
    """
    picture = open_picture(path, what="a depth map", lossless=True)
    stored = np.asarray(picture)
    if not picture.mode.startswith("I") or stored.min() < 0 or stored.max() > LARGEST:
        kind = f"{stored.shape[2]} channels" if stored.ndim == 3 else f"one of {stored.dtype}"
        raise UserError(
            f"{path}: a depth map must be a PNG with one channel of 16 bits, got {kind}; store metres × {scale:g}, "
            "and 0 where depth is unknown"
        )
    return stored.astype(np.float32) / np.float32(scale)


@dataclass(frozen=True)
class DepthImages(ImageSequence):
    """Frames as image files, with depth maps as their labels. scale: a stored number's metres are number / scale."""

    scale: float = SCALE

    def labels(self, index: int) -> LabelMap | None:
        path = self.label_paths[index] if self.label_paths else None
        return None if path is None else read_depth(path, self.scale)


def depth_maps(root: str | Path, *, scale: Positive = SCALE, height: Pixels | None = None) -> VideoDataset:
    """Folders with `frames/` and `labels/`: 16-bit PNG of one channel with the names of the frames, 0 is unknown.

    `vidistill label` writes this layout.

    Args:
        root: Folder that holds these folders.
        scale: What one metre is in the files: 256 as in KITTI, 1000 where they hold millimetres.
        height: Resizes frames and depth maps to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per folder, with depth in metres.

    Raises:
        UserError: If there is no such folder, or the scale is not positive.
    """
    root = Path(root)
    check_height(height)
    if not scale > 0:
        raise UserError(f"depth_maps: scale must be above 0, got {scale:g}; give 256 for KITTI's, 1000 for millimetres")
    sequences: list[FrameSequence] = []
    for folder in sorted(path.parent for path in root.glob("*/frames")):
        frames = images_in(folder / "frames")
        wanted = [folder / "labels" / f"{frame.stem}.png" for frame in frames]
        present = [path if path.exists() else None for path in wanted]
        missing = [path for path in wanted if not path.exists()]
        sequence = DepthImages(folder.name, frames, present, missing_labels=missing, scale=scale)
        sequences.append(sequence if height is None else ResizedSequence(sequence, height))
    if not sequences:
        raise UserError(f"{root}: has no folders with frames/ and labels/; give the output folder of vidistill label")
    return VideoDataset(root.name or "depth_maps", sequences)


class DepthMapFolder(LabelImageFolder):
    """A new folder that `depth_maps` reads: a folder for each video with its frames and 16-bit depth maps as PNG."""

    def pixels(self, prediction: Prediction) -> NDArray[np.uint16]:
        return to_png(prediction)
