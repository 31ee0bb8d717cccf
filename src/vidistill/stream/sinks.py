"""Where a stream's results of any task go: a drawn or restored video, a folder of masks or frames, JSON lines."""

import json
import sys
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

from PIL import Image as PillowImage

from vidistill.data.video.sound import Sound
from vidistill.data.video.writer import SQUARE, VideoWriter
from vidistill.files import atomic_path, new_folder, require_new, writing
from vidistill.stream.stream import StreamOutput
from vidistill.stream_outputs.looks import Look


class Sink(AbstractContextManager["Sink"]):
    """Takes outputs one by one; what it wrote takes its place when the block ends well, and vanishes otherwise."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    @abstractmethod
    def write(self, output: StreamOutput) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class DrawnVideo(Sink):
    """The frames with the predictions on them, or the restored frames, with the times and the sound of `source`.

    first: index of the source's first frame.
    """

    def __init__(
        self,
        path: Path,
        fps: float | Fraction,
        look: Look,
        *,
        source: str | None = None,
        first: int = 0,
        pixel_aspect: Fraction = SQUARE,
    ) -> None:
        super().__init__()
        sound = self._stack.enter_context(Sound(source)) if source and Path(source).is_file() else None
        self.writer = VideoWriter(path, fps=fps, sound=sound, pixel_aspect=pixel_aspect)
        self.look = look
        self.first = first

    def write(self, output: StreamOutput) -> None:
        seconds = output.pts_seconds if self.look.restores else None
        self.writer.write(self.look.draw(output), seconds, silent=output.index < self.first)

    def __enter__(self) -> "DrawnVideo":
        self._stack.enter_context(self.writer)
        return self


class JsonLines(Sink):
    """One line a frame: index, time, whether it is a key frame, the network's time, and the prediction in words."""

    def __init__(self, path: Path | None, look: Look) -> None:
        super().__init__()
        self.path = path
        self.look = look
        self._file: IO[str] = sys.stdout

    def write(self, output: StreamOutput) -> None:
        line = {
            "index": output.index,
            "pts_seconds": output.pts_seconds,
            "key_frame": output.is_key_frame,
            "milliseconds": round(output.milliseconds, 3),
            **self.look.describe(output),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()  # whoever reads along sees each frame as it comes

    def __enter__(self) -> "JsonLines":
        if self.path is not None:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        return self


class ImageFolder(Sink):
    """A PNG of every frame's prediction, class ids or a restored frame, named by its index."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        require_new(path)
        self.path = path
        self._temporary = path

    def write(self, output: StreamOutput) -> None:
        with writing(self.path):
            PillowImage.fromarray(output.prediction).save(self._temporary / f"{output.index:08d}.png")

    def __enter__(self) -> "ImageFolder":
        self._temporary = self._stack.enter_context(new_folder(self.path))
        return self
