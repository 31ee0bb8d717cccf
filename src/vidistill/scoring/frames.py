"""A model over sequences → metrics with their protocol."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vidistill.data.clip import FrameSequence, Image, LabelMap
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.metrics import ConfusionMatrix, Share
from vidistill.ops.normalise import Normalisation
from vidistill.progress import track
from vidistill.tasks import Task

STILL = 2  # grey levels a channel may differ by where "the image does not change"

CPU = torch.device("cpu")

Prediction = NDArray[np.uint8]  # (H, W) class ids


@dataclass(frozen=True)
class Setting:
    """What the model is measured with."""

    task: Task
    num_classes: int
    normalisation: Normalisation
    device: torch.device = CPU


@dataclass(frozen=True)
class _Frame:
    index: int
    image: Image
    labels: LabelMap | None
    reference: Prediction | None


class SegmentationScores:
    """Everything that is counted while a model with key frames runs over sequences."""

    def __init__(self, num_classes: int, key_frame_interval: int) -> None:
        self.interval = key_frame_interval
        self.by_distance = [ConfusionMatrix(num_classes) for _ in range(key_frame_interval)]
        self.agreement = [Share() for _ in range(key_frame_interval)]
        self.consistency = ConfusionMatrix(num_classes)
        self.flips = Share()
        self.num_labelled = 0
        self.num_frames = 0

    def add(self, frame: _Frame, prediction: Prediction, distance: int) -> None:
        if frame.labels is not None:
            self.by_distance[distance].update(frame.labels, prediction)
        if frame.reference is not None:
            self.agreement[distance].update((frame.reference == prediction).sum(), prediction.size)
        if distance == 0:
            self.num_frames += 1
            self.num_labelled += frame.labels is not None

    def add_pair(self, first: Prediction, second: Prediction, motion: "_Motion") -> None:
        """Consecutive predictions of one stream."""
        self.consistency.update(first, motion.flow.carry_back(second), motion.flow.visible)
        self.flips.update((first != second)[motion.still].sum(), motion.still.sum())

    def metrics(self) -> dict[str, Any]:
        """The figures with their protocol; None where there was nothing to count."""
        mious = [matrix.mean_iou() for matrix in self.by_distance]
        agreements = [share.value for share in self.agreement]
        return {
            "miou": mean_of(mious),
            "miou_by_distance": mious if any(m is not None for m in mious) else None,
            "agreement": mean_of(agreements),
            "agreement_by_distance": agreements if any(a is not None for a in agreements) else None,
            "temporal_consistency": self.consistency.mean_iou(present_only=True),
            "flip_rate": self.flips.value,
            "num_scored": self.num_labelled,
            "num_frames": self.num_frames,
            "iou_by_class": self.by_distance[0].iou().tolist() if self.num_labelled else None,
            "protocol": self._protocol(),
        }

    def _protocol(self) -> str:
        return (
            f"mIoU: one confusion matrix per distance to the key frame (0…{self.interval - 1}) over all key-frame "
            f"phases, mean over {len(self.consistency.counts)} classes, 255 ignored, logits resized bilinearly to the "
            f"labels, then mean over distances; {self.num_labelled} labelled of {self.num_frames} frames. "
            "Agreement: share of pixels with the teacher's class, mean over distances. "
            f"Temporal consistency: mIoU of consecutive predictions along the flow ({FLOW_SOURCE}), nearest, occluded "
            "left out, one matrix over all pairs and phases, classes that occur. Flip rate: share of pixels whose "
            f"class changes where no channel changes by more than {STILL} levels."
        )


@dataclass(frozen=True)
class _Motion:
    flow: Correspondence
    still: NDArray[np.bool_]

    @classmethod
    def between(cls, first: Image, second: Image) -> "_Motion":
        change = np.abs(first.astype(np.int16) - second).max(axis=-1)
        return cls(estimate_correspondence(first, second), change <= STILL)


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean, None where any value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def evaluate(
    model: nn.Module,
    sequences: Sequence[FrameSequence],
    setting: Setting,
    *,
    key_frame_interval: int,
    teacher: nn.Module | None = None,
) -> dict[str, Any]:
    """The metrics of a model whose key frames come every `key_frame_interval` frames, over every phase of them.

    Every frame is a key frame once and is once at each distance that its sequence allows. model, teacher: obey
    `outputs, state = model(frame, state)`, in evaluation mode; with a teacher, agreement with it is counted.
    """
    scores = SegmentationScores(setting.num_classes, key_frame_interval)
    total = sum(len(sequence) for sequence in sequences)
    frames = ((sequence, index, image) for sequence in sequences for index, image in enumerate(sequence.images()))
    with torch.inference_mode():
        runs = _Runs(model, setting, scores)
        for sequence, index, image in track(frames, "evaluating", total=total):
            reference = predict(teacher, image, setting, None)[0] if teacher is not None else None
            runs.add(_Frame(index, image, sequence.labels(index), reference))
            if index + 1 == len(sequence):
                runs.end_sequence()
    return scores.metrics()


class _Runs:
    """Starts a run of one key frame and its delta frames from every frame, in constant memory."""

    def __init__(self, model: nn.Module, setting: Setting, scores: SegmentationScores) -> None:
        self.model, self.setting, self.scores = model, setting, scores
        self.window: deque[_Frame] = deque()
        self.motions: dict[int, _Motion] = {}  # by the first frame of the pair
        self.last: dict[int, Prediction] = {}  # by the key frame that follows in the same phase

    def add(self, frame: _Frame) -> None:
        if self.window:
            self.motions[self.window[-1].index] = _Motion.between(self.window[-1].image, frame.image)
        self.window.append(frame)
        if len(self.window) > self.scores.interval:
            self._run()

    def end_sequence(self) -> None:
        while self.window:
            self._run()
        self.motions.clear()
        self.last.clear()

    def _run(self) -> None:
        start = self.window[0].index
        earlier = self.last.pop(start, None)
        for distance, (frame, prediction) in enumerate(self._predictions()):
            self.scores.add(frame, prediction, distance)
            if earlier is not None and frame.index > 0:
                self.scores.add_pair(earlier, prediction, self.motions[frame.index - 1])
            earlier = prediction
        if earlier is not None:
            self.last[start + self.scores.interval] = earlier
        self.window.popleft()
        self.motions.pop(start - 1, None)

    def _predictions(self) -> Iterator[tuple[_Frame, Prediction]]:
        state = None
        for frame in list(self.window)[: self.scores.interval]:
            prediction, state = predict(self.model, frame.image, self.setting, state)
            yield frame, prediction


def predict(model: nn.Module, image: Image, setting: Setting, state: Any) -> tuple[Prediction, Any]:
    """The model's classes for one decoded frame, and its state after it."""
    frame = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(setting.device)
    normalise = getattr(model, "normalisation", None) or setting.normalisation
    outputs, state = model(normalise(frame), state)
    prediction = setting.task.decode(outputs, size=(image.shape[0], image.shape[1]))
    return prediction[0].cpu().numpy(), state
