"""Where a stream's results go: a drawn or restored video, a folder of images, JSON lines, a task's own files."""

from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image as PillowImage

from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.data.video.sound import Sound
from vidistill.data.video.writer import CODECS, SQUARE, VideoWriter
from vidistill.errors import UserError
from vidistill.files import GrowingText, json_text, new_folder, require_new, writing
from vidistill.students.student import Student
from vidistill.tasks import StreamOutput, Task
from vidistill.tasks.contract import Look, ResultFile

LEAST_FPS, MOST_FPS, DEFAULT_FPS = 0.1, 1000, 25


@dataclass(frozen=True)
class Source:
    """The video that comes in.

    Attributes:
        fps: frames per second.
        path: of a file whose sound a restored video keeps; None for frames from elsewhere.
        first: index of its first frame on the stream, after those of an earlier video.
        pixel_aspect: a pixel's width ÷ its height, which a drawn video keeps.
        is_live: whether it is a pipe or a camera, whose times begin anywhere; a drawn video then begins at 0.
    """

    fps: float | Fraction
    path: str | None = None
    first: int = 0
    pixel_aspect: Fraction = SQUARE
    is_live: bool = False


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
    """The frames with the predictions on them, or the restored frames, at their own times; these with their sound."""

    def __init__(self, path: Path, look: Look, source: Source, *, restores: bool) -> None:
        super().__init__()
        heard = source.path if restores and source.path is not None and Path(source.path).is_file() else None
        sound = self._stack.enter_context(Sound(heard)) if heard else None
        # for frames without times and for avi; browsers and cameras write rates that no video has
        fps = source.fps if LEAST_FPS <= source.fps <= MOST_FPS else DEFAULT_FPS
        self.writer = VideoWriter(path, fps=fps, sound=sound, pixel_aspect=source.pixel_aspect)
        self.look, self.first = look, source.first
        self._begins_at: float | None = None if source.is_live else 0.0  # seconds that become 0

    def write(self, output: StreamOutput) -> None:
        seconds = output.pts_seconds
        if seconds is not None:
            self._begins_at = seconds if self._begins_at is None else self._begins_at
            seconds -= self._begins_at
        self.writer.write(self.look.draw(output), seconds, silent=output.index < self.first)

    def __enter__(self) -> "DrawnVideo":
        self._stack.enter_context(self.writer)
        return self


class JsonLines(_Sink):
    """One line a frame: index, time, whether it is a key frame, the network's time, and the prediction in words.

    The first frame after a loss says so. Whoever reads along sees each line as its frame is done, also in a file.
    """

    def __init__(self, path: Path | None, look: Look) -> None:
        super().__init__()
        self.look = look
        self._file = None if path is None else GrowingText(path)

    def write(self, output: StreamOutput) -> None:
        line = {
            "index": output.index,
            "pts_seconds": output.pts_seconds,
            "key_frame": output.is_key_frame,
            "milliseconds": round(output.milliseconds, 3),
            **({"after_loss": True} if output.after_loss else {}),
            **self.look.describe(output),
        }
        if self._file is not None:
            self._file.write(json_text(line))
        else:
            print(json_text(line), flush=True)

    def __enter__(self) -> "JsonLines":
        if self._file is not None:
            self._stack.enter_context(self._file)
        return self


class ImageFolder(_Sink):
    """A PNG of every frame's prediction, class ids, values or a restored frame, named by its index."""

    def __init__(self, path: Path, look: Look) -> None:
        super().__init__()
        require_new(path)
        self.path, self.look = path, look
        self._temporary = path

    def write(self, output: StreamOutput) -> None:
        picture = self._temporary / f"{output.index:08d}.png"
        with writing(self.path):
            try:
                PillowImage.fromarray(self.look.image(output)).save(picture)
            except OSError:
                picture.unlink(missing_ok=True)  # the pictures before it are whole
                raise

    def __enter__(self) -> "ImageFolder":
        self._temporary = self._stack.enter_context(new_folder(self.path))
        return self
