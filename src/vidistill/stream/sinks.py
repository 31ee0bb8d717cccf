"""Where a stream's results go: a drawn or restored video, a folder of images, JSON lines, a task's own files."""

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

from PIL import Image as PillowImage

from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.data.video.sound import Sound
from vidistill.data.video.writer import CODECS, SQUARE, VideoWriter
from vidistill.errors import UserError
from vidistill.files import atomic_path, new_folder, require_new, writing
from vidistill.students.student import Student
from vidistill.tasks import StreamOutput, Task
from vidistill.tasks.contract import Look, ResultFile


@dataclass(frozen=True)
class Source:
    """The video that comes in.

    Attributes:
        fps: frames per second.
        path: of a file whose sound a restored video keeps; None for frames from elsewhere.
        first: index of its first frame on the stream, after those of an earlier video.
        pixel_aspect: a pixel's width ÷ its height, which a drawn video keeps.
    """

    fps: float | Fraction
    path: str | None = None
    first: int = 0
    pixel_aspect: Fraction = SQUARE


def open_sink(out: str, student: Student, source: Source) -> ResultFile:
    """By the name of `out`: a video file, a .jsonl file, "-" for JSON lines on standard output, a file of the task's
    own by its suffix, else a new folder of images.

    Raises:
        UserError: `out` has another suffix, is a folder that exists, or the task has no images.
    """
    path, task, card = Path(out), student.task, student.card
    look = task.look(card.naming)
    if out == "-" or path.suffix == ".jsonl":
        return JsonLines(None if out == "-" else path, look)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return DrawnVideo(path, look, source, restores=task.restores)
    if path.suffix in task.result_files:
        return task.result_files[path.suffix](path, card.naming, source.path or "stream")
    if path.suffix or not task.image_files:
        raise UserError(f"cannot write to {out}: a student of {task.name} writes {_choices(task)}; choose one of these")
    return ImageFolder(path, look)


def _choices(task: Task) -> str:
    choices = [f"a video ({' '.join(CODECS)})", "a .jsonl file"]
    if task.result_files:
        choices.append(f"a {' or '.join(task.result_files)} file")
    if task.image_files:
        choices.append(f"a folder of {task.image_files}")
    return ", ".join(choices[:-1]) + " or " + choices[-1]


class _Sink(ResultFile):
    """Whatever it opens is closed when the block ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]


class DrawnVideo(_Sink):
    """The frames with the predictions on them, or the restored frames, with the times and the sound of the source."""

    def __init__(self, path: Path, look: Look, source: Source, *, restores: bool) -> None:
        super().__init__()
        heard = source.path if restores and source.path is not None and Path(source.path).is_file() else None
        sound = self._stack.enter_context(Sound(heard)) if heard else None
        self.writer = VideoWriter(path, fps=source.fps, sound=sound, pixel_aspect=source.pixel_aspect)
        self.look, self.restores, self.first = look, restores, source.first

    def write(self, output: StreamOutput) -> None:
        seconds = output.pts_seconds if self.restores else None
        self.writer.write(self.look.draw(output), seconds, silent=output.index < self.first)

    def __enter__(self) -> "DrawnVideo":
        self._stack.enter_context(self.writer)
        return self


class JsonLines(_Sink):
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


class ImageFolder(_Sink):
    """A PNG of every frame's prediction, class ids, values or a restored frame, named by its index."""

    def __init__(self, path: Path, look: Look) -> None:
        super().__init__()
        require_new(path)
        self.path, self.look = path, look
        self._temporary = path

    def write(self, output: StreamOutput) -> None:
        with writing(self.path):
            PillowImage.fromarray(self.look.image(output)).save(self._temporary / f"{output.index:08d}.png")

    def __enter__(self) -> "ImageFolder":
        self._temporary = self._stack.enter_context(new_folder(self.path))
        return self
