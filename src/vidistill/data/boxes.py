"""Boxes of a frame, and sequences whose frames have some."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidistill.data.clip import FrameSequence
from vidistill.data.resized import ResizedSequence, resized_width
from vidistill.data.wrapped import WrappedSequence
from vidistill.errors import UserError
from vidistill.ops.box_rows import CLASS, SCORE


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a frame shows, box by box.

    xyxy: (N, 4) float32 pixels, edges: a box around pixel (x, y) alone is (x, y, x + 1, y + 1).
    labels: (N,) int64 class ids from 0. instances: (N,) int64, the same id for the same thing in every frame of a
    sequence, −1 unknown. scores: (N,) float32, of a detector. crowd: (N,) bool, regions where detections are neither
    asked for nor counted wrong. num_clipped: how many boxes reached beyond the frame and were clipped to it, those
    wholly outside and gone included.
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    instances: NDArray[np.int64] | None = None
    scores: NDArray[np.float32] | None = None
    crowd: NDArray[np.bool_] | None = None
    num_clipped: int = 0

    def __post_init__(self) -> None:
        if self.xyxy.shape != (len(self.labels), 4):
            raise ValueError(f"xyxy has shape {self.xyxy.shape} for {len(self.labels)} labels")
        for name in ("instances", "scores", "crowd"):
            values = getattr(self, name)
            if values is not None and values.shape != self.labels.shape:
                raise ValueError(f"{name} has shape {values.shape} for {len(self.labels)} labels")

    @classmethod
    def of(
        cls,
        xyxy: ArrayLike,
        labels: ArrayLike,
        *,
        instances: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
    ) -> "Boxes":
        """Boxes from anything that numpy reads, of the right types; none from empty lists."""
        return cls(
            np.asarray(xyxy, np.float32).reshape(-1, 4),
            np.asarray(labels, np.int64).reshape(-1),
            None if instances is None else np.asarray(instances, np.int64).reshape(-1),
            None if scores is None else np.asarray(scores, np.float32).reshape(-1),
            None if crowd is None else np.asarray(crowd, np.bool_).reshape(-1),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> NDArray[np.float32]:
        """(N, 6) left, top, right, bottom, class, score; 1 where there is no score. See `ops.box_rows`."""
        scores = np.ones(len(self), np.float32) if self.scores is None else self.scores
        return np.concatenate([self.xyxy, self.labels[:, None], scores[:, None]], axis=1).astype(np.float32)

    @classmethod
    def of_rows(cls, rows: NDArray[np.float32]) -> "Boxes":
        """The boxes of rows (M, 6), without those that fill up."""
        rows = rows[rows[:, CLASS] >= 0]
        return cls.of(rows[:, :4], rows[:, CLASS], scores=rows[:, SCORE])

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Boxes":
        """The boxes at `which`, a mask or indices."""

        def part(values: Any) -> Any:
            return None if values is None else values[which]

        parts = part(self.instances), part(self.scores), part(self.crowd)
        return Boxes(self.xyxy[which], self.labels[which], parts[0], parts[1], parts[2], self.num_clipped)

    def scaled(self, x: float, y: float) -> "Boxes":
        """The boxes in a frame resized by the factors x and y."""
        return replace(self, xyxy=self.xyxy * np.array([x, y, x, y], np.float32))

    def clipped(self, size: tuple[int, int]) -> "Boxes":
        """The boxes' parts inside a frame of `size` (height, width), and in `num_clipped` how many had others."""
        height, width = size
        inside = self.xyxy.clip(0, np.array([width, height, width, height], np.float32))
        beyond = int((inside != self.xyxy).any(axis=1).sum())
        remains = np.all(inside[:, 2:] > inside[:, :2], axis=1)
        return replace(replace(self, xyxy=inside).chosen(remains), num_clipped=self.num_clipped + beyond)

    def checked(self, *, num_classes: int, where: str) -> "Boxes":
        """The boxes themselves. Errors: UserError, which says `where`, for one not finite, empty or of no class."""
        finite = np.isfinite(self.xyxy).all(axis=1)
        if not finite.all():
            raise _bad_box(self, np.argmin(finite), where, "is not made of finite numbers")
        full = (self.xyxy[:, 2:] > self.xyxy[:, :2]).all(axis=1)
        if not full.all():
            raise _bad_box(self, np.argmin(full), where, "has no width or height, or a negative one")
        known = (self.labels >= 0) & (self.labels < num_classes)
        if not known.all():
            raise _bad_box(self, np.argmin(known), where, f"is of class {self.labels[np.argmin(known)]}, unknown here")
        return self


def _bad_box(boxes: Boxes, index: np.intp, where: str, fault: str) -> UserError:
    shown = ", ".join(f"{value:g}" for value in boxes.xyxy[index].tolist())
    return UserError(f"{where}: box {index} (left, top, right, bottom = {shown}) {fault}; mend it or take it out")


@runtime_checkable
class HasBoxes(Protocol):
    """A sequence whose frames have boxes, none where nothing is seen."""

    def boxes(self, index: int) -> Boxes: ...


def boxes_of(sequence: FrameSequence, index: int) -> Boxes | None:
    """The frame's boxes; None where the sequence is not annotated with any."""
    return sequence.boxes(index) if isinstance(sequence, HasBoxes) else None


@dataclass(frozen=True)
class BoxedSequence(WrappedSequence):
    """Frames and the boxes of each. scale: (x, y) factors from the annotations' pixels to the frames'."""

    annotations: Sequence[Boxes] = ()
    scale: tuple[float, float] = (1.0, 1.0)

    def boxes(self, index: int) -> Boxes:
        return self.annotations[index].scaled(*self.scale)

    def labelled(self) -> Sequence[int]:
        """Every frame: one without boxes is known to show nothing."""
        return range(len(self))

    def problems(self) -> list[str]:
        found, clipped = self.frames.problems(), 0
        for index in range(len(self.annotations)):
            try:
                clipped += self.annotations[index].num_clipped
            except UserError as error:
                found.append(str(error))
        if clipped:
            found.append(f"{self.name}: {clipped} boxes reach beyond their frame and are clipped to it")
        return found


def boxed(
    frames: FrameSequence, annotations: Sequence[Boxes], *, size: tuple[int, int], height: int | None
) -> BoxedSequence:
    """The frames with their boxes, both resized to `height` where one is given. size: (height, width) before.

    Errors: UserError for a height below 1.
    """
    check_height(height)
    if height is None:
        return BoxedSequence(frames, annotations)
    width = resized_width(size, height)
    return BoxedSequence(ResizedSequence(frames, height), annotations, (width / size[1], height / size[0]))


def check_height(height: int | None) -> None:
    """Errors: UserError for a height below 1."""
    if height is not None and height < 1:
        raise UserError(f"height: {height} is no height; give a number of pixels")


def check_range(frames: tuple[int, int] | None) -> slice:
    """The slice of [first, end), of everything for None. Errors: UserError for an empty range."""
    if frames is None:
        return slice(None)
    if not 0 <= frames[0] < frames[1]:
        raise UserError(f"frames: {list(frames)} is no range of frames; give [first, end) with 0 <= first < end")
    return slice(*frames)
