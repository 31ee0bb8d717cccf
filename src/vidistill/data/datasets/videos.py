"""Videos without labels: a folder of video files, of folders of frames, or one file."""

import os
from collections.abc import Iterator
from pathlib import Path

from vidistill.config import Pixels
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.image_files import images_in, natural_key
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.errors import UserError


def videos(root: str | Path, *, frames: FrameRange | None = None, height: Pixels | None = None) -> VideoDataset:
    """All video files in a folder and the folders in it, and every folder of images there as one video; or one file.

    Sequences come in natural order. Hidden files and folders are ignored, and so are images beside video files.

    Args:
        root: A folder, or a video file.
        frames: [first, end) of each video. A shorter video is an error; for a video file when it is first used.
        height: Resizes frames to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per video, without labels.

    Raises:
        UserError: If the path does not exist or holds no videos, or for an empty range or a height below 1.
    """
    root = Path(root)
    part = frame_slice(frames)
    check_height(height)
    if not os.path.exists(root):  # False of names that no file can have
        raise UserError(f"{root}: file or folder not found; check the path")
    readers = OpenReaders()
    sequences: list[FrameSequence] = []
    left_out: list[Path] = []
    for folder, files in [(root.parent, [root])] if root.is_file() else _folders(root):
        paths = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or path == root]
        sequences += [VideoSequence(_name(path, root), path, frames, readers) for path in paths]
        images = [] if paths else images_in(folder)
        left_out += [path for path in files if path not in paths and path not in images]
        if images:
            sequences.append(ImageSequence(_name(folder, root), select_frames(images, part, path=folder)))
    if not sequences:
        found = f", only {_suffixes(left_out)} files" if left_out else ""
        raise UserError(
            f"{root}: has no videos{found}; choose a folder of videos ({', '.join(VIDEO_SUFFIXES[:9])}, …) or of frames"
        )
    if height is not None:
        sequences = [ResizedSequence(sequence, height) for sequence in sequences]
    note = f"{root}: {len(left_out)} files are not read, they are not named as videos ({_suffixes(left_out)})"
    return VideoDataset("videos", sequences, notes=(note,) if left_out else ())


def _suffixes(paths: list[Path]) -> str:
    return ", ".join(sorted({path.suffix.lower() or path.name for path in paths})[:8])


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder from `root` down with its files, in natural order. Links are followed; each folder comes once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        # os.walk goes on with what is left in `folders`
        folders[:] = [] if real in seen else sorted((f for f in folders if f[0] != "."), key=natural_key)
        if real not in seen:
            yield Path(folder), [Path(folder, f) for f in sorted((f for f in files if f[0] != "."), key=natural_key)]
        seen.add(real)


def _name(path: Path, root: Path) -> str:
    """The path from `root`; the last part of `root` itself."""
    return Path(os.path.abspath(root)).name if path == root else path.relative_to(root).as_posix()
