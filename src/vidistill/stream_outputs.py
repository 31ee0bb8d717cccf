"""Where a stream's results go: an annotated or restored video, a folder of masks or frames, or JSON lines."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol

import numpy as np
from PIL import Image as PillowImage

from vidistill.data.clip import Image
from vidistill.data.sound import Sound
from vidistill.data.video import VIDEO_SUFFIXES
from vidistill.data.video_writer import VideoWriter
from vidistill.distill.card import Card
from vidistill.errors import UserError
from vidistill.files import atomic_path, writing
from vidistill.ops.draw import caption, overlay, palette_of
from vidistill.stream import StreamOutput

MOST_NAMED = 5  # classes of a recognition in a line


class Sink(AbstractContextManager["Sink"], Protocol):
    """Takes outputs one by one; what it wrote takes its place when the block ends well, and vanishes otherwise."""

    def write(self, output: StreamOutput) -> None: ...


class Look(Protocol):
    """How a task's predictions are shown. images: what they are as image files, "masks" or "frames"; "" for none.

    restores: whether the video that is drawn stands for the one that came in, and takes its sound and times.
    """

    images: ClassVar[str]
    restores: ClassVar[bool]

    def draw(self, output: StreamOutput) -> Image:
        """The frame with the prediction on it."""
        ...

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        """The prediction in plain values."""
        ...


class SegmentationLook:
    """Classes as colours; in words each class's share of the frame."""

    images: ClassVar = "masks"
    restores: ClassVar = False

    def __init__(self, card: Card) -> None:
        self.class_names = card.class_names
        self.palette = palette_of(len(card.class_names) or 255, card.palette)

    def draw(self, output: StreamOutput) -> Image:
        what = "key" if output.is_key_frame else "delta"
        picture = overlay(output.image, output.prediction, self.palette)
        return caption(picture, f"{what} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        ids, counts = np.unique(output.prediction, return_counts=True)
        size = output.prediction.size
        shares = {name_of(self.class_names, int(i)): round(int(n) / size, 6) for i, n in zip(ids, counts, strict=True)}
        return {"shares": shares}


class RecognitionLook:
    """The likeliest class, in words the likeliest few."""

    images: ClassVar = ""
    restores: ClassVar = False

    def __init__(self, card: Card) -> None:
        self.class_names = card.class_names

    def draw(self, output: StreamOutput) -> Image:
        best = int(output.prediction.argmax())
        name = name_of(self.class_names, best)
        return caption(output.image, f"{name} {output.prediction[best]:.0%}, {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        order = np.argsort(-output.prediction, kind="stable")[:MOST_NAMED]
        return {"classes": {name_of(self.class_names, int(i)): round(float(output.prediction[i]), 6) for i in order}}


class SuperResolutionLook:
    """The large frame itself; in words its size."""

    images: ClassVar = "frames"
    restores: ClassVar = True

    def __init__(self, card: Card) -> None:
        pass

    def draw(self, output: StreamOutput) -> Image:
        return output.prediction

    def describe(self, output: StreamOutput) -> dict[str, Any]:
        height, width = output.prediction.shape[:2]
        return {"size": [width, height]}


LOOKS: dict[str, type[Look]] = {
    "segmentation": SegmentationLook,
    "recognition": RecognitionLook,
    "super_resolution": SuperResolutionLook,
}


def name_of(class_names: Sequence[str], class_id: int) -> str:
    """The class's name, its number where it has none."""
    return class_names[class_id] if class_id < len(class_names) else str(class_id)


def open_sink(out: str, *, fps: float | Fraction, card: Card, source: str | None = None) -> Sink:
    """By the name of `out`: a video file, a .jsonl file, "-" for JSON lines on standard output, else a new folder.

    source: the video that comes in, whose sound a restored video keeps.
    Errors: UserError where `out` has another file suffix, is a folder that is there already, or the student's task has
    no images.
    """
    path, look = Path(out), LOOKS[card.task["name"]](card)  # type: ignore[call-arg]  # a Protocol says nothing of it
    if out == "-" or path.suffix == ".jsonl":
        return JsonLines(None if out == "-" else path, look)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return DrawnVideo(path, fps, look, source if look.restores else None)
    choices = f"a video ({' '.join(VIDEO_SUFFIXES)}) or a .jsonl file"
    if not look.images:
        raise UserError(f"{out}: write {choices}")
    if path.suffix:
        raise UserError(f"{out}: write {choices}, or a folder of {look.images}")
    return ImageFolder(path)


class DrawnVideo(Sink):
    """The frames with the predictions on them, or the restored frames, with the times and the sound of `source`."""

    def __init__(self, path: Path, fps: float | Fraction, look: Look, source: str | None = None) -> None:
        self._stack = ExitStack()
        sound = self._stack.enter_context(Sound(source)) if source and Path(source).is_file() else None
        self.writer = VideoWriter(path, fps=fps, sound=sound)
        self.look = look

    def write(self, output: StreamOutput) -> None:
        self.writer.write(self.look.draw(output), output.pts_seconds if self.look.restores else None)

    def __enter__(self) -> "DrawnVideo":
        self._stack.enter_context(self.writer)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]


class JsonLines(Sink):
    """One line a frame: index, time, whether it is a key frame, the network's time, and the prediction in words."""

    def __init__(self, path: Path | None, look: Look) -> None:
        self.path = path
        self.look = look
        self._stack = ExitStack()
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

    def __enter__(self) -> "JsonLines":
        if self.path is not None:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]


class ImageFolder(Sink):
    """A PNG of every frame's prediction, class ids or a restored frame, named by its index."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise UserError(f"{path}: is there already; name a folder that is not, or remove it")
        self.path = path
        self._temporary = path

    def write(self, output: StreamOutput) -> None:
        with writing(self.path):
            PillowImage.fromarray(output.prediction).save(self._temporary / f"{output.index:08d}.png")

    def __enter__(self) -> "ImageFolder":
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}."))
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            with writing(self.path):
                self._temporary.chmod(0o755)
                self._temporary.rename(self.path)
        else:
            shutil.rmtree(self._temporary, ignore_errors=True)
