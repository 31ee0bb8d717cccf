"""Videos without labels: a folder of video files, of folders of frames, or one file."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vidistill.data.clip import FrameSequence, Image, LabelMap, VideoDataset
from vidistill.data.resized import ResizedSequence
from vidistill.data.sequences.images import ImageSequence, images_in
from vidistill.data.video.reader import VIDEO_SUFFIXES, VideoReader, natural_key, verify
from vidistill.errors import UserError

MAX_OPEN = 16  # a decoder holds up to 17 pictures; another one of the same video costs a scan of its packets

Range = tuple[int, int]  # [first, end)


def videos(root: str | Path, *, frames: Range | None = None, height: int | None = None) -> VideoDataset:
    """Every video file in `root` and the folders in it, and every folder of images in it as one video; or one file.

    Images beside video files are not frames: they are left out. Natural order; hidden files and folders are ignored.
    frames: [first, end) of each video; one that ends before `first` is an error, for a file when it is used.
    height: resizes all frames to that height, the width in proportion.
    Errors: no such path; no videos in it; an empty range; no such height.
    """
    root = Path(root)
    if frames is not None and not 0 <= frames[0] < frames[1]:
        raise UserError(f"frames: {list(frames)} is no range of frames; give [first, end) with 0 <= first < end")
    if height is not None and height < 1:
        raise UserError(f"height: {height} is no height; give a number of pixels")
    if not root.exists():
        raise UserError(f"{root}: there is no such file or folder; check the path")
    readers = OpenReaders()
    sequences: list[FrameSequence] = []
    for folder, files in [(root.parent, [root])] if root.is_file() else _folders(root):
        paths = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or path == root]
        sequences += [VideoSequence(_name(path, root), path, frames, readers) for path in paths]
        images = [] if paths else images_in(folder)
        if images:
            sequences.append(_frame_folder(_name(folder, root), images, frames))
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


def _frame_folder(name: str, images: list[Path], frames: Range | None) -> ImageSequence:
    chosen = images[slice(*frames)] if frames else images
    if not chosen:
        raise _too_short(images[0].parent, len(images), frames)
    return ImageSequence(name, chosen)


def _too_short(path: Path, num_frames: int, frames: Range | None) -> UserError:
    return UserError(f"{path}: has {num_frames} frames and none of {frames}; change frames, or take the video out")


class OpenReaders:
    """The readers that a process used last. A forked or pickled copy begins with none, for decoders can't be shared."""

    def __init__(self) -> None:
        self._process = 0
        self._readers: dict[Path, VideoReader] = {}  # the last used comes last

    def __reduce__(self) -> tuple[type["OpenReaders"], tuple[()]]:
        return OpenReaders, ()

    def __getitem__(self, path: Path) -> VideoReader:
        if self._process != os.getpid():
            self._process, self._readers = os.getpid(), {}
        reader = self._readers.pop(path, None) or VideoReader(path)
        self._readers[path] = reader
        if len(self._readers) > MAX_OPEN:
            self._readers.pop(next(iter(self._readers))).close()
        return reader


@dataclass(frozen=True)
class VideoSequence:
    """A video file, or `frames` of it; opened when first used, so that a broken one can be listed with the rest."""

    name: str
    path: Path
    frames: Range | None
    readers: OpenReaders

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def _places(self) -> range:
        """The frames' places in the file."""
        num_frames = self.readers[self.path].num_frames
        places = range(num_frames)[slice(*self.frames)] if self.frames else range(num_frames)
        if not places:
            raise _too_short(self.path, num_frames, self.frames)
        return places

    def image(self, index: int) -> Image:
        return self.readers[self.path][self._places[index]].image

    def images(self) -> Iterator[Image]:
        first, end = self.frames or (0, None)
        with VideoReader(self.path) as reader:
            for frame in itertools.islice(reader, first, end):
                yield frame.image

    def labels(self, index: int) -> LabelMap | None:
        return None

    def labelled(self) -> Sequence[int]:
        return ()

    def problems(self) -> list[str]:
        problem = verify(self.path)
        if problem is None and self.frames is not None:
            try:
                len(self)
            except UserError as error:
                problem = str(error)
        return [] if problem is None else [problem]
