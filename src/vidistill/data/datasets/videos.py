"""Videos without labels: a folder of video files, of folders of frames, or one file."""

import os
from collections.abc import Iterator
from pathlib import Path

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.image_files import images_in, natural_key
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.errors import UserError


def videos(root: str | Path, *, frames: FrameRange | None = None, height: int | None = None) -> VideoDataset:
    """Every video file in `root` and the folders in it, and every folder of images in it as one video; or one file.

    Images beside video files are not frames: they are left out. Natural order; hidden files and folders are ignored.
    frames: [first, end) of each video; one that ends before `first` is an error, for a file when it is used.
    height: resizes all frames to that height, the width in proportion.
    Errors: no such path; no videos in it; an empty range; no such height.
    """
    root = Path(root)
    part = frame_slice(frames)
    check_height(height)
    if not root.exists():
        raise UserError(f"{root}: there is no such file or folder; check the path")
    readers = OpenReaders()
    sequences: list[FrameSequence] = []
    for folder, files in [(root.parent, [root])] if root.is_file() else _folders(root):
        paths = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or path == root]
        sequences += [VideoSequence(_name(path, root), path, frames, readers) for path in paths]
        images = [] if paths else images_in(folder)
        if images:
            sequences.append(ImageSequence(_name(folder, root), select_frames(images, part, path=folder)))
    if not sequences:
        raise UserError(
            f"{root}: there are no videos in it; give a folder of videos ({', '.join(VIDEO_SUFFIXES)}) or of frames"
        )
    if height is not None:
        sequences = [ResizedSequence(sequence, height) for sequence in sequences]
    return VideoDataset("videos", sequences)


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder from `root` down with its files, in natural order; links are followed, each folder comes once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted((f for f in folders if f[0] != "."), key=natural_key)
        if real not in seen:
            yield Path(folder), [Path(folder, f) for f in sorted((f for f in files if f[0] != "."), key=natural_key)]
        seen.add(real)


def _name(path: Path, root: Path) -> str:
    return Path(os.path.abspath(root)).name if path == root else path.relative_to(root).as_posix()
