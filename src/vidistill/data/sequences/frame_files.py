"""The files that the frames of a sequence come from, or are written to."""

from collections.abc import Sequence, Set
from itertools import count
from pathlib import Path, PurePosixPath

from vidistill.data.clip import FrameSequence
from vidistill.data.image_files import write_image
from vidistill.data.sequences.boxes import BoxedSequence
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import VideoSequence


def frame_paths(sequence: FrameSequence) -> Sequence[Path]:
    """The image files of the frames; none where the frames are not exactly such files."""
    frames = _unresized(sequence)
    return frames.image_paths if isinstance(frames, ImageSequence) else ()


def source_video(sequence: FrameSequence) -> Path | None:
    """The video file whose first frames these are; None where they are not."""
    frames = _unresized(sequence)
    if isinstance(frames, VideoSequence) and (frames.frames is None or frames.frames[0] == 0):
        return frames.path
    return None


def write_images(sequence: FrameSequence, folder: Path, names: Sequence[str]) -> None:
    """Writes the frames into `folder` under `names`."""
    for name, image in zip(names, sequence.images(), strict=True):
        write_image(image, folder / name)


def unique_name(name: str, taken: Set[str]) -> str:
    """The name, or the first free one of clip.mp4, clip_2.mp4, clip_3.mp4, …"""
    ending = PurePosixPath(name).suffix
    others = (f"{name.removesuffix(ending)}_{number}{ending}" for number in count(2))
    return name if name not in taken else next(other for other in others if other not in taken)


def _unresized(sequence: FrameSequence) -> FrameSequence:
    """The frames below the boxes, unless they are resized with them."""
    return sequence.frames if isinstance(sequence, BoxedSequence) and sequence.height is None else sequence
