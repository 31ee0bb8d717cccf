"""The boxes of a frame, and sequences whose frames have boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.image_files import size_text
from vidistill.data.resized import WrappedSequence, check_height, resize_image, resized_width
from vidistill.errors import UserError
from vidistill.ops.boxes import CLASS, SCORE

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one frame.

    xyxy: (N, 4) float32 pixel edges: a box around pixel (x, y) alone is (x, y, x + 1, y + 1).
    labels: (N,) int64 class ids from 0. instances: (N,) int64, the same id for the same thing in every frame of a
    sequence, −1 unknown. scores: (N,) float32, of a detector. crowd: (N,) bool, regions where detections are neither
    required nor counted as wrong. size: (height, width) of the annotated frame, None where unknown.
    num_clipped: how many reached beyond the frame and were clipped; num_outside: how many lay outside and were removed.
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    instances: NDArray[np.int64] | None = None
    scores: NDArray[np.float32] | None = None
    crowd: NDArray[np.bool_] | None = None
    size: tuple[int, int] | None = None
    num_clipped: int = 0
    num_outside: int = 0

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
        """Boxes from anything that numpy reads, converted to the right types; empty lists give none."""
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which `checked` refuses
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
        """(N, 6) left, top, right, bottom, class, score; score 1 where there are none. See `ops.boxes`."""
        scores = np.ones(len(self), np.float32) if self.scores is None else self.scores
        return np.concatenate([self.xyxy, self.labels[:, None], scores[:, None]], axis=1).astype(np.float32)

    @classmethod
    def of_rows(cls, rows: NDArray[np.float32]) -> "Boxes":
        """The boxes of rows (M, 6), without padding rows."""
        rows = rows[rows[:, CLASS] >= 0]
        return cls.of(rows[:, :4], rows[:, CLASS], scores=rows[:, SCORE])

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Boxes":
        """The boxes at `which`, a mask (N,) or indices (M,)."""

        def part(values: NDArray[Number] | None) -> NDArray[Number] | None:
            return None if values is None else values[which]

        return replace(
            self,
            xyxy=self.xyxy[which],
            labels=self.labels[which],
            instances=part(self.instances),
            scores=part(self.scores),
            crowd=part(self.crowd),
        )

    def resized(self, height: int) -> "Boxes":
        """The boxes in the frame resized to `height`. Errors: ValueError where its size is unknown."""
        if self.size is None:
            raise ValueError("boxes can only be resized with a known frame size; call `clipped` first")
        width = resized_width(self.size, height)
        scale_x, scale_y = width / self.size[1], height / self.size[0]
        scales = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        return replace(self, xyxy=self.xyxy * scales, size=(height, width))

    def clipped(self, size: tuple[int, int]) -> "Boxes":
        """The parts of the boxes inside a frame of `size` (height, width); counts those that were cut or removed."""
        height, width = size
        inside = self.xyxy.clip(0, np.array([width, height, width, height], np.float32))
        remains = np.all(inside[:, 2:] > inside[:, :2], axis=1)
        reaches = (inside != self.xyxy).any(axis=1) & remains
        return replace(
            replace(self, xyxy=inside).chosen(remains),
            size=size,
            num_clipped=self.num_clipped + int(reaches.sum()),
            num_outside=self.num_outside + int((~remains).sum()),
        )

    def checked(self, *, num_classes: int, where: str) -> "Boxes":
        """The boxes themselves.

        Errors: UserError, which begins with `where`, for a box that is not finite or is empty, a class that is not in
        0…num_classes - 1, or a score that is not in 0…1.
        """
        finite = np.isfinite(self.xyxy).all(axis=1)
        if not finite.all():
            raise _bad_box(self, np.argmin(finite), where, "must be finite numbers")
        full = (self.xyxy[:, 2:] > self.xyxy[:, :2]).all(axis=1)
        if not full.all():
            raise _bad_box(self, np.argmin(full), where, "must have a width and a height above 0")
        known = (self.labels >= 0) & (self.labels < num_classes)
        if not known.all():
            index = np.argmin(known)
            fault = f"must have a class from 0 to {num_classes - 1}, got {self.labels[index]}"
            raise _bad_box(self, index, where, fault)
        scores = np.ones(len(self), np.float32) if self.scores is None else self.scores
        likely = (scores >= 0) & (scores <= 1)  # NaN is neither
        if not likely.all():
            index = np.argmin(likely)
            raise _bad_box(self, index, where, f"must have a score between 0 and 1, got {scores[index]:g}")
        return self


def _bad_box(boxes: Boxes, index: np.intp, where: str, fault: str) -> UserError:
    shown = ", ".join(f"{value:g}" for value in boxes.xyxy[index].tolist())
    return UserError(f"{where}: box {index} (left, top, right, bottom = {shown}) {fault}; correct it or remove it")


@runtime_checkable
class HasBoxes(Protocol):
    """A sequence whose frames have boxes, zero where a frame shows nothing."""

    def boxes(self, index: int) -> Boxes: ...


def boxes_of(sequence: FrameSequence, index: int) -> Boxes | None:
    """The frame's boxes; None where the sequence has no box annotations."""
    return sequence.boxes(index) if isinstance(sequence, HasBoxes) else None


def all_boxes(sequence: FrameSequence) -> list[Boxes]:
    """The boxes of every frame. Errors: UserError where the sequence has no box annotations."""
    if not isinstance(sequence, HasBoxes):
        raise UserError(f"{sequence.name}: has no boxes to write; choose a data set with boxes")
    return [sequence.boxes(index) for index in range(len(sequence))]


@dataclass(frozen=True)
class BoxedSequence(WrappedSequence):
    """Frames and the boxes of each, both resized to `height` unless it is None.

    annotations: one per frame, in the frames' own pixels. Errors: UserError for a height below 1; on reading, for a
    frame of another size than the one that its boxes were annotated in.
    """

    annotations: Sequence[Boxes] = ()
    height: int | None = None

    def __post_init__(self) -> None:
        check_height(self.height)

    def image(self, index: int) -> Image:
        return self._checked(index, self.frames.image(index))

    def images(self) -> Iterator[Image]:
        return (self._checked(index, image) for index, image in enumerate(self.frames.images()))

    def boxes(self, index: int) -> Boxes:
        boxes = self.annotations[index]
        return boxes if self.height is None else boxes.resized(self.height)

    def labelled(self) -> Sequence[int]:
        """Every frame: one without boxes is annotated as showing nothing."""
        return range(len(self))

    def problems(self) -> list[str]:
        problems, num_outside = self.frames.problems(), 0
        size = None if problems else self.frames.image(0).shape[:2]  # without problems all frames have one size
        for index in range(len(self.annotations)):
            try:
                boxes = self.annotations[index]
                self._check_size(index, boxes, size)
                num_outside += boxes.num_outside
            except UserError as error:
                problems.append(str(error))
        if num_outside:
            problems.append(
                f"{self.name}: {num_outside} boxes lie outside their frame and are left out; correct or remove them"
            )
        return problems

    def notes(self) -> list[str]:
        """One sentence for each thing worth knowing, but no problem. Errors: UserError for a broken annotation."""
        num_clipped = sum(self.annotations[index].num_clipped for index in range(len(self.annotations)))
        if num_clipped == 0:
            return []
        return [f"{self.name}: {num_clipped} boxes reach beyond their frame and are clipped to it"]

    def _checked(self, index: int, image: Image) -> Image:
        self._check_size(index, self.annotations[index], image.shape[:2])
        return image if self.height is None else resize_image(image, self.height)

    def _check_size(self, index: int, boxes: Boxes, size: tuple[int, ...] | None) -> None:
        if size is not None and boxes.size is not None and boxes.size != size:
            raise UserError(
                f"{self.name}, frame {index}: is {size_text(size)}, expected {size_text(boxes.size)} as its annotation "
                "says; correct the annotation, or copy the frame again"
            )
