"""Where a stream's results go: an annotated video, a folder of masks, or JSON lines."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image as PillowImage

from vidistill.data.video import VIDEO_SUFFIXES
from vidistill.data.video_writer import VideoWriter
from vidistill.errors import UserError
from vidistill.files import atomic_path, writing
from vidistill.ops.draw import caption, overlay, palette_of
from vidistill.stream import StreamOutput


class Sink(AbstractContextManager["Sink"], Protocol):
    """Takes outputs one by one; what it wrote takes its place when the block ends well, and vanishes otherwise."""

    def write(self, output: StreamOutput) -> None: ...


def open_sink(
    out: str, *, fps: float | Fraction, class_names: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> Sink:
    """By the name of `out`: a video file, a .jsonl file, "-" for JSON lines on standard output, else a folder of masks.

    Errors: UserError where `out` has another file suffix, or is a folder that is there already.
    """
    path = Path(out)
    if out == "-" or path.suffix == ".jsonl":
        return JsonLines(None if out == "-" else path, class_names)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return AnnotatedVideo(path, fps, palette_of(len(class_names) or 255, palette))
    if path.suffix:
        raise UserError(f"{out}: write a video ({' '.join(VIDEO_SUFFIXES)}), a .jsonl file, or a folder of masks")
    return MaskFolder(path)


class AnnotatedVideo(Sink):
    """The frames with the classes laid over them."""

    def __init__(self, path: Path, fps: float | Fraction, palette: np.ndarray) -> None:
        self.writer = VideoWriter(path, fps=fps)
        self.palette = palette

    def write(self, output: StreamOutput) -> None:
        what = "key" if output.is_key_frame else "delta"
        picture = overlay(output.image, output.labels, self.palette)
        self.writer.write(caption(picture, f"{what} {output.milliseconds:.0f} ms"))

    def __enter__(self) -> "AnnotatedVideo":
        self.writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.__exit__(*exception)  # type: ignore[arg-type]


class JsonLines(Sink):
    """One line a frame: index, time, whether it is a key frame, the network's time, and each class's share."""

    def __init__(self, path: Path | None, class_names: Sequence[str]) -> None:
        self.path = path
        self.class_names = class_names
        self._stack = ExitStack()
        self._file: IO[str] = sys.stdout

    def write(self, output: StreamOutput) -> None:
        ids, counts = np.unique(output.labels, return_counts=True)
        line = {
            "index": output.index,
            "pts_seconds": output.pts_seconds,
            "key_frame": output.is_key_frame,
            "milliseconds": round(output.milliseconds, 3),
            "shares": {
                self._name(int(i)): round(int(n) / output.labels.size, 6) for i, n in zip(ids, counts, strict=True)
            },
        }
        self._file.write(json.dumps(line) + "\n")

    def _name(self, class_id: int) -> str:
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def __enter__(self) -> "JsonLines":
        if self.path is not None:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]


class MaskFolder(Sink):
    """A PNG of class ids for every frame, named by its index."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise UserError(f"{path}: is there already; name a folder that is not, or remove it")
        self.path = path
        self._temporary = path

    def write(self, output: StreamOutput) -> None:
        with writing(self.path):
            PillowImage.fromarray(output.labels).save(self._temporary / f"{output.index:08d}.png")

    def __enter__(self) -> "MaskFolder":
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
