"""What a task promises. Whatever tells one task from another is in that task's folder, behind this contract.

A task knows its targets, how outputs compare, what they decode to, which metrics count and how predictions are drawn.
It never runs a network and never knows which method distils for it: frames, outputs and predictions are given to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vidistill.config import Settings, Share, Values, check_numbers, plain, whole
from vidistill.data.clip import FrameSequence, Image, TrainingSamples, VideoDataset
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs
from vidistill.ops.clip_view import View
from vidistill.ops.draw import palette_of
from vidistill.ops.normalise import Normalisation
from vidistill.report.figures import Picture
from vidistill.report.page import RunFolder, Section
from vidistill.report.table import Metric

Prediction = NDArray[Any]  # what a task decodes of one frame, see `Task.decode`
Truth = TypeVar("Truth")  # what a task knows of a frame or a video to score predictions by

STRIP_FRAMES = 4  # frames of a page's strip
VIDEO_FRAMES = 150  # frames of side_by_side.mp4


@dataclass(frozen=True)
class StreamOutput:
    """The result of one frame of a stream.

    Attributes:
        index: of the frame, from 0.
        pts_seconds: the frame's own time; None where it has none.
        image: (H, W, 3) uint8 RGB, the frame as it came.
        prediction: what the task decodes, for example (H, W) class ids, (K,) class probabilities or (M, 6) boxes.
        is_key_frame: whether the frame was a key frame.
        milliseconds: the network's time with decoding its outputs.
        after_loss: whether frames before this one were lost, so that the stream began anew with it.
    """

    index: int
    pts_seconds: float | None
    image: Image
    prediction: Prediction
    is_key_frame: bool
    milliseconds: float
    after_loss: bool = False


@dataclass(frozen=True)
class Naming:
    """How the classes of a network are called and coloured; both may be empty."""

    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    def name(self, class_id: int) -> str:
        """The class's name; its number where it has none."""
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def names(self, num_classes: int) -> list[str]:
        """Of all classes."""
        return [self.name(class_id) for class_id in range(num_classes)]

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """(256, 3), see `palette_of`."""
        return palette_of(len(self.class_names) or 255, self.palette)


class Look(ABC):
    """How predictions of a task are shown on a stream."""

    @abstractmethod
    def draw(self, output: StreamOutput) -> Image:
        """The frame with the prediction on it."""

    @abstractmethod
    def describe(self, output: StreamOutput) -> Values:
        """The prediction in plain values, as a line of JSON has them."""

    def image(self, output: StreamOutput) -> NDArray[np.generic]:
        """The prediction as the pixels of an image file; see `Task.image_files`."""
        return output.prediction


class ResultFile(AbstractContextManager["ResultFile"]):
    """Takes the outputs of a stream one by one. The file is whole when the block ends well; where it does not, only a
    text of lines is left, up to its last whole line."""

    @abstractmethod
    def write(self, output: StreamOutput) -> None: ...


class LabelFiles(ABC):
    """Takes a teacher's predictions as labels of unlabelled videos, and writes them in a layout that a recipe reads."""

    @abstractmethod
    def begin(self, video: str) -> None:
        """The frames that follow are this video's."""

    @abstractmethod
    def add(self, image: Image, prediction: Prediction) -> None:
        """One frame with what `Task.as_labeller` decodes of it."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    path: Path  # of what is written


@dataclass(frozen=True)
class WholeClips(Generic[Truth]):
    """A video to be scored as whole clips. frames: (V, T, H, W, 3) uint8, V views of it with T frames each."""

    frames: NDArray[np.uint8]
    truth: Truth


class Scores(ABC, Generic[Truth]):
    """Counts the predictions of one network over the sequences of a data set."""

    def begin(self, sequence: FrameSequence) -> None:
        """What follows belongs to this sequence."""

    def add(
        self,
        truth: Truth,
        prediction: Prediction,
        *,
        distance: int,
        reference: Prediction | None = None,
        before: Prediction | None = None,
    ) -> None:
        """One frame.

        Args:
            truth: what `Task.frames` gives for the frame.
            prediction: what the network predicts.
            distance: frames since the key frame.
            reference: what the teacher predicts; None without a teacher.
            before: what the network predicted for the frame before, on the same stream; None on its first frame.
        """
        raise NotImplementedError

    def add_clips(
        self, truth: Truth, outputs: Sequence[NetworkOutputs], reference: Sequence[NetworkOutputs] | None
    ) -> None:
        """One video that `Task.clips` cut: the outputs of each of its views, and the teacher's."""
        raise NotImplementedError

    def leave_out(self, error: UserError) -> None:
        """A video whose clips cannot be decoded."""
        raise error

    @abstractmethod
    def metrics(self) -> Values:
        """The figures by the keys of `Task.metrics`, None where nothing was counted; `num_scored`, `num_frames`, and
        `protocol`, which says in words how each is measured."""


class Pictures(ABC, Generic[Truth]):
    """What people look at after a run: a panel for each frame of a video, and a file that the page draws from."""

    @abstractmethod
    def panel(self, truth: Truth, outputs: dict[str, StreamOutput]) -> Image:
        """The frame as the networks see and predict it, side by side. outputs: by network, all for one frame."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `Task.report_sections` and `Task.report_figures` read."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task with its settings, which are its fields. Most methods have a default that suits tasks of single frames.

    Outputs are whatever the network returns.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    clip_settings: ClassVar[type[Settings]]  # how training clips are drawn: `data.clip` of a recipe
    normalisation: ClassVar[Normalisation] = Normalisation()  # of networks unless a recipe gives another
    sees_clips: ClassVar[bool] = False  # whether its networks see whole clips, see `ClipView`
    any_size: ClassVar[bool] = True  # whether predictions for a resized frame can be given in the frame's own pixels
    default_losses: ClassVar[dict[str, float]] = {}  # weights of its losses, where they are not `task` and `teacher`
    every_phase: ClassVar[bool] = True  # score every frame at every distance to a key frame, else one stream a video
    whole_videos: ClassVar[bool] = False  # a video counts once, as `clips` cuts it, whatever its number of frames
    datasets: ClassVar[dict[str, Callable[..., VideoDataset]]] = {}  # data sets that only this task reads
    image_files: ClassVar[str] = ""  # what a stream's predictions are as image files: "masks", "frames"; "" for none
    restores: ClassVar[bool] = (
        False  # whether the video drawn stands for the one that came in, with its sound and times
    )
    result_files: ClassVar[
        Mapping[str, Callable[[Path, Naming, str], ResultFile]]
    ] = {}  # by suffix: path, names, source

    def to_values(self) -> Values:
        """`{name, …settings}` in plain values; `vidistill.tasks.task_of` reads them."""
        return {"name": self.name, **plain(self)}

    def __post_init__(self) -> None:
        check_numbers(self)

    def naming(self, class_names: tuple[str, ...], palette: tuple[tuple[int, int, int], ...]) -> Naming:
        """How its classes are called and coloured. class_names, palette: those of a card; both may be empty."""
        return Naming(class_names, palette)

    # ---- training

    @property
    def degraded(self) -> str:
        """What is done to frames before a network sees them, the same for its teacher; "" for nothing."""
        return ""

    @property
    def network_options(self) -> Values:
        """What networks for this task are built with."""
        return {}

    @abstractmethod
    def samples(self, settings: Any, datasets: Sequence[VideoDataset], *, use_labels: bool) -> TrainingSamples:
        """What a run trains on. settings: of the class `clip_settings`."""

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as a network without memory sees it. By default every frame by itself, with its labels.

        clips: (B, T, 3, H, W), or (B, T, window, 3, h, w). Returns (B·T, …) of each, or whole clips.
        """
        return clips.flatten(0, 1), labels.flatten(0, 1)

    @abstractmethod
    def supervise(
        self, outputs: NetworkOutputs, labels: Tensor, teacher_outputs: NetworkOutputs | None = None
    ) -> dict[str, Tensor]:
        """Named losses of outputs against labels; zero, with a gradient path, where nothing is labelled.

        A task with pseudo-labels makes them of the teacher's outputs, where they are given.
        """

    @abstractmethod
    def compare(self, student_outputs: NetworkOutputs, teacher_outputs: NetworkOutputs) -> dict[str, Tensor]:
        """Named losses of the student's outputs against the teacher's; no gradient reaches the teacher."""

    @abstractmethod
    def decode(self, outputs: NetworkOutputs, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """Predictions (B, …) for frames of `size` (height, width), in their pixels.

        seen: the size in which the network got the frame, where that is another.
        """

    def stand_in(self, settings: Any) -> Values:
        """A data source that needs no files, on which a recipe's clips can be drawn."""
        return {"name": "synthetic"}

    # ---- labels

    def has_labels(self, sequence: FrameSequence) -> bool:
        """Whether anything is known of it that a student can learn or be scored by."""
        return len(sequence.labelled()) > 0

    def label_problems(self, sequences: Sequence[FrameSequence]) -> list[str]:
        """What makes the labels of a data set mean nothing, a sentence each; reads all of them."""
        return []

    # ---- scoring

    def check_videos(self, sequences: Sequence[FrameSequence], views: Sequence[View | None]) -> None:  # noqa: B027
        """Before any training, and before any scoring. views: of the networks that will be scored.

        Raises:
            UserError: a video cannot be scored.
        """

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, Any]]:
        """Every frame as a network gets it, with the truth to score it by (None: the frame is not scored)."""
        raise NotImplementedError

    def clips(self, sequence: FrameSequence, view: View | None) -> WholeClips[Any] | None:
        """The whole clips that a video is scored on; None where it is scored frame by frame."""
        return None

    @abstractmethod
    def scores(self, *, interval: int, view: View | None) -> Scores[Any]:
        """An empty count for a network of this view. interval: frames from one key frame to the next."""

    def baselines(self) -> dict[str, nn.Module]:
        """Networks without training that any student must beat, by name; they see single frames."""
        return {}

    # ---- showing

    @abstractmethod
    def look(self, naming: Naming) -> Look:
        """How predictions are drawn on a stream."""

    def shown(self, sequences: Sequence[FrameSequence]) -> tuple[int, Iterator[tuple[Image, Any]]]:
        """How many frames a run's pictures show at most, and these, as `frames` gives them.

        By default the beginning of the longest sequence.
        """
        longest = max(sequences, key=len)
        return min(len(longest), VIDEO_FRAMES), islice(self.frames(longest), VIDEO_FRAMES)

    @abstractmethod
    def pictures(self, naming: Naming, *, interval: int, length: int) -> Pictures[Any]:
        """Empty pictures of `length` frames, of which every `interval`-th is a key frame."""

    def report_sections(self, run: RunFolder) -> list[Section]:
        """Parts of the page from what `Pictures.save` wrote."""
        return []

    def report_figures(self, run: RunFolder) -> list[Picture]:
        """Figures of the page beyond those of every task."""
        return []

    # ---- labelling

    def is_for(self, network: nn.Module) -> bool:
        """Whether a network that comes without a card is surely one for this task."""
        return False

    def as_labeller(self, score: float) -> "Task":
        """The task as it decodes labels: what is less sure than `score` is left out."""
        raise UserError(f"a teacher of the task {self.name} cannot label frames; give a teacher of another task")

    def label_files(self, out: Path, kept: Mapping[str, int]) -> LabelFiles:
        """Where labels go. kept: the teacher's ids of the classes to keep, by name, in their new order.

        Raises:
            UserError: `out` exists.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """A task whose labels are classes.

    Args:
        num_classes: 0 for as many as the data or the teacher has.
        confidence: pseudo-labels. What has no label at all gets the teacher's prediction where its probability reaches
            this, 0…1; None for no pseudo-labels.
    """

    num_classes: Annotated[int, *whole(0, 2**15)] = 0
    confidence: Share | None = None

    @property
    def network_options(self) -> Values:
        return {"num_classes": self.num_classes}

    @property
    def num_ids(self) -> int:
        """How many class ids its labels and predictions have: more than `num_classes` where one output tells two."""
        return self.num_classes

    def known_ids(self) -> int:
        """The same. Errors: UserError where the number of classes is unknown."""
        if not self.num_classes:
            raise UserError(f"{self.name}: num_classes is unknown; give it in the card, Card(task=…(num_classes=…))")
        return self.num_ids


def strip_indices(length: int, interval: int) -> set[int]:
    """Frames for a strip: spread over the clip and over the distances to the key frame, the farthest included."""
    starts = np.linspace(0, max(0, length - interval), STRIP_FRAMES)
    distances = np.linspace(0, interval - 1, STRIP_FRAMES)
    return {min(length - 1, int(s) // interval * interval + round(d)) for s, d in zip(starts, distances, strict=True)}


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean; None where any value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def by_distance(values: Sequence[float | None]) -> list[float | None] | None:
    """The values as `results.json` keeps them; None where none is known."""
    return list(values) if any(value is not None for value in values) else None


def key_or_distance(distance: int) -> str:
    """For a caption: what kind of frame it is."""
    return "key frame" if distance == 0 else f"+{distance}"


def require_same_frames(trained: Task, task: Task, *, where: str) -> None:
    """Checks that a teacher trained for one task can teach another.

    Raises:
        UserError: the two differ in what networks predict or in what is done to their frames.
    """
    if trained.name != task.name:
        raise UserError(f"{where}: was trained for {trained.name}, this task is {task.name}; give a teacher for it")
    if trained.degraded != task.degraded:
        raise UserError(
            f"{where}: was trained on frames with {trained.degraded}, this task has {task.degraded}; give another "
            "teacher, or give the task the teacher's scale and degradation"
        )
