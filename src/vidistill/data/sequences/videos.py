"""Video files as sequences, and the open decoders that they share."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vidistill.data.clip import Image, LabelMap
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.video.reader import VideoReader, verify
from vidistill.errors import UserError

MAX_OPEN = 16  # decoders; each holds up to 17 pictures, and opening one again costs a scan of the packets


class OpenReaders:
    """The readers that this process used last. A forked or pickled copy starts empty: decoders cannot be shared."""

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
    """A video file, or `frames` of it. Opened when first used, so that a broken one can be listed with the rest."""

    name: str
    path: Path
    frames: FrameRange | None
    readers: OpenReaders

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def _places(self) -> Sequence[int]:
        """The frames' places in the file."""
        return select_frames(range(self.readers[self.path].num_frames), frame_slice(self.frames), path=self.path)

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

    def notes(self) -> list[str]:
        """What is worth knowing of a video without problems."""
        info = self.readers[self.path].info
        if info.num_video_streams == 1:
            return []
        return [
            f"{self.path}: has {info.num_video_streams} video streams; stream {info.stream} is read "
            f"({info.width}x{info.height}, {info.codec})"
        ]
