"""The files that the frames of a sequence come from, or are written to."""

from collections.abc import Callable, Sequence, Set
from itertools import chain, count
from pathlib import Path, PurePosixPath

from vidistill.data.clip import FrameSequence
from vidistill.data.foreign import safe_name
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


def unique_name(name: str, taken: Set[str], *, form: Callable[[str], str] = str) -> str:
    """The name, or the first free one of clip.mp4, clip_2.mp4, clip_3.mp4, … taken: in the form that `form` gives."""
    ending = PurePosixPath(name).suffix
    others = (f"{name.removesuffix(ending)}_{number}{ending}" for number in count(2))
    return next(other for other in chain([name], others) if form(other) not in taken)


def folder_name(name: str, taken: set[str]) -> str:
    """A name for the new folder of a video that is called `name`, which may come from anywhere: see `safe_name`.

    taken: the names given so far, to which it is added; names that differ in case alone count as equal.
    """
    chosen = unique_name(safe_name(name), taken, form=str.casefold)
    taken.add(chosen.casefold())
    return chosen


def _unresized(sequence: FrameSequence) -> FrameSequence:
    """The frames below the boxes, unless they are resized with them."""
    return sequence.frames if isinstance(sequence, BoxedSequence) and sequence.height is None else sequence
