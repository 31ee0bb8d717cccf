"""A detector over sequences → average precision with its protocol, by distance to the key frame."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sequences.boxes import Boxes, boxes_of
from vidistill.ops.detection_metrics import PROTOCOL, AveragePrecision
from vidistill.progress import track
from vidistill.scoring.frames import Setting, mean_of, predict

CONFIDENT = 0.5  # the score from which a teacher's boxes stand for true ones


@dataclass(frozen=True)
class BoxedFrame:
    """truth: None where the frame is not annotated. reference: what a teacher finds, None without one."""

    image: Image
    truth: Boxes | None
    reference: Boxes | None


class DetectionScores:
    """Everything that is counted while a detector with key frames runs over sequences."""

    def __init__(self, num_classes: int, key_frame_interval: int) -> None:
        self.interval = key_frame_interval
        self.precision = [AveragePrecision(num_classes) for _ in range(key_frame_interval)]
        self.agreement = [AveragePrecision(num_classes) for _ in range(key_frame_interval)]
        self.num_frames = 0
        self.num_annotated = 0
        self.num_boxes = 0

    def add(self, frame: BoxedFrame, found: Boxes, distance: int) -> None:
        if frame.truth is not None:
            _add(self.precision[distance], frame.truth, found)
        if frame.reference is not None and frame.reference.scores is not None:
            _add(self.agreement[distance], frame.reference.chosen(frame.reference.scores >= CONFIDENT), found)
        if distance == 0:
            self.num_frames += 1
            self.num_annotated += frame.truth is not None
            self.num_boxes += 0 if frame.truth is None else len(frame.truth)

    def metrics(self) -> dict[str, Any]:
        """The figures with their protocol; None where there was nothing to find."""
        values = [precision.value() for precision in self.precision]
        agreements = [precision.value()["ap50"] for precision in self.agreement]
        ap50, ap = ([value[name] for value in values] for name in ("ap50", "ap"))
        return {
            "ap50": mean_of(ap50),
            "ap50_by_distance": ap50 if any(value is not None for value in ap50) else None,
            "ap": mean_of(ap),
            "ap_by_distance": ap if any(value is not None for value in ap) else None,
            "agreement": mean_of(agreements),
            "agreement_by_distance": agreements if any(value is not None for value in agreements) else None,
            "num_scored": self.num_annotated,
            "num_frames": self.num_frames,
            "num_boxes": self.num_boxes,
            "ap50_by_class": self.precision[0].by_class() if self.num_boxes else None,
            "protocol": self._protocol(ap50 if self.num_boxes else agreements),
        }

    def _protocol(self, by_distance: Sequence[float | None]) -> str:
        return (
            f"AP50 and AP@[.5:.95]: {PROTOCOL}; at each distance to the key frame (0…{self.interval - 1}) over all "
            f"key-frame phases, then mean over distances; {self.num_boxes} boxes in {self.num_annotated} annotated of "
            f"{self.num_frames} frames. Agreement: AP50 with the teacher's boxes of score {CONFIDENT:g} or more as "
            f"the truth, mean over distances.{_unknown(by_distance)}"
        )


def _unknown(by_distance: Sequence[float | None]) -> str:
    """The sentence that says why there is no mean over distances, where only some of them have a value."""
    missing = [str(distance) for distance, value in enumerate(by_distance) if value is None]
    if not missing or len(missing) == len(by_distance):
        return ""
    return (
        f" There was nothing to find at the distances {', '.join(missing)}, so the mean is unknown: take longer "
        "sequences, or a smaller key_frame_interval."
    )


def _add(precision: AveragePrecision, truth: Boxes, found: Boxes) -> None:
    scores = np.ones(len(found), np.float32) if found.scores is None else found.scores
    precision.add(
        boxes=truth.xyxy,
        labels=truth.labels,
        crowd=truth.crowd,
        found_boxes=found.xyxy,
        found_scores=scores,
        found_labels=found.labels,
    )


def evaluate_detections(
    model: nn.Module,
    sequences: Sequence[FrameSequence],
    setting: Setting,
    *,
    key_frame_interval: int,
    teacher: nn.Module | None = None,
) -> dict[str, Any]:
    """The metrics of a detector whose key frames come every `key_frame_interval` frames, over every phase of them.

    As `frames.evaluate`: every frame is a key frame once, and once at each distance that its sequence allows.
    """
    scores = DetectionScores(setting.num_classes, key_frame_interval)
    with torch.inference_mode():
        for window in track(
            _windows(sequences, setting, teacher, key_frame_interval), "evaluating", total=sum(map(len, sequences))
        ):
            state = None
            for distance, frame in enumerate(window):
                found, state = found_in(model, frame.image, setting, state)
                scores.add(frame, found, distance)
    return scores.metrics()


def _windows(
    sequences: Sequence[FrameSequence], setting: Setting, teacher: nn.Module | None, length: int
) -> Iterator[list[BoxedFrame]]:
    """Of every frame, itself and the frames after it, `length` in all where its sequence has as many."""
    for sequence in sequences:
        window: deque[BoxedFrame] = deque()
        for index, image in enumerate(sequence.images()):
            reference = None if teacher is None else found_in(teacher, image, setting, None)[0]
            window.append(BoxedFrame(image, boxes_of(sequence, index), reference))
            if len(window) == length:
                yield list(window)
                window.popleft()
        while window:
            yield list(window)
            window.popleft()


def found_in(model: nn.Module, image: Image, setting: Setting, state: Any) -> tuple[Boxes, Any]:
    """What the model finds in one decoded frame, and its state after it."""
    rows, state = predict(model, image, setting, state)
    return Boxes.of_rows(np.asarray(rows, np.float32)), state
