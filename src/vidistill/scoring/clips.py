"""A network of clips over videos with a class each → metrics with their protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sampling import dense_indices, segment_indices
from vidistill.data.sequences.classified import classes_of
from vidistill.errors import UserError
from vidistill.ops.classification import confusion, mean_average_precision, mean_class_accuracy, top_k_accuracy
from vidistill.ops.clip_view import ClipView, cut_square
from vidistill.progress import track
from vidistill.scoring.frames import Setting
from vidistill.students.student import StatefulNetwork
from vidistill.tasks.recognition.task import Recognition

THIRDS = ((0.5, 0.0), (0.5, 0.5), (0.5, 1.0))  # of the room beside a square, for three crops


@dataclass(frozen=True)
class Prediction:
    """What a network says of one video. classes: its labels; probabilities: (K,), averaged over the views."""

    name: str
    classes: tuple[int, ...]
    probabilities: NDArray[np.float32]


@dataclass
class Predictions:
    """Of all videos that could be decoded, in order; `undecodable` says of the others why."""

    videos: list[Prediction]
    undecodable: list[str]

    def scores(self) -> NDArray[np.float32]:
        return np.stack([video.probabilities for video in self.videos])


def evaluate_clips(
    model: StatefulNetwork,
    sequences: Sequence[FrameSequence],
    setting: Setting,
    *,
    teacher: StatefulNetwork | None = None,
) -> dict[str, Any]:
    """The metrics of a network of clips, in evaluation mode; with a teacher, agreement with it is counted.

    A video that cannot be decoded is left out and named. Errors: UserError where none is left.
    """
    predictions = predict_videos(model, sequences, setting)
    others = None if teacher is None else predict_videos(teacher, sequences, setting)
    return clip_metrics(model, predictions, others, setting)


def clip_metrics(
    model: StatefulNetwork, predictions: Predictions, others: Predictions | None, setting: Setting
) -> dict[str, Any]:
    """The metrics of what the model said; `agreement` with what others said of the same videos, where they did.

    `predictions` has a row a video: its name, its classes, the class of largest probability.
    Errors: UserError where no video could be decoded.
    """
    num_videos = len(predictions.videos) + len(predictions.undecodable)
    if not predictions.videos:
        raise UserError(f"none of the {num_videos} videos can be scored: {predictions.undecodable[0]}")
    task = setting.task
    assert isinstance(task, Recognition)
    assert isinstance(model.view, ClipView)
    return {
        **_accuracies(predictions, task),
        "agreement": None if others is None else _agreement(predictions, others),
        "undecodable": predictions.undecodable,
        "predictions": [[v.name, list(v.classes), int(v.probabilities.argmax())] for v in predictions.videos],
        "num_frames": num_videos,
        "protocol": _protocol(predictions, task, model.view, num_videos),
    }


def _require_known_classes(sequences: Sequence[FrameSequence], num_classes: int) -> None:
    """Errors: UserError where a video has a class that the network does not know."""
    for sequence in sequences:
        if max(classes_of(sequence), default=0) >= num_classes:
            raise UserError(
                f"{sequence.name}: has the class {max(classes_of(sequence))}, and the network knows {num_classes}, "
                "from 0; score it on videos of its own classes"
            )


def _accuracies(predictions: Predictions, task: Recognition) -> dict[str, Any]:
    """The task's metrics over the videos that have labels; None where none has."""
    labelled = [video for video in predictions.videos if video.classes]
    found: dict[str, Any] = {"top1": None, "top5": None, "mean_class_accuracy": None, "map": None, "confusion": None}
    if not labelled:
        return {**found, "num_scored": 0}
    scores = np.stack([video.probabilities for video in labelled])
    labels = np.zeros_like(scores)
    for row, video in zip(labels, labelled, strict=True):
        row[list(video.classes)] = 1
    if task.multi_label:
        found["map"] = mean_average_precision(scores, labels)
    else:
        found["top1"] = top_k_accuracy(scores, labels, k=1)
        found["top5"] = top_k_accuracy(scores, labels, k=5) if task.num_classes > 5 else None
        found["mean_class_accuracy"] = mean_class_accuracy(scores, labels)
        found["confusion"] = confusion(scores, labels).tolist()
    return {**found, "num_scored": len(labelled)}


def _agreement(ours: Predictions, theirs: Predictions) -> float:
    """The share of videos of which both say the same class."""
    known = {video.name: video.probabilities.argmax() for video in theirs.videos}
    same = [video.probabilities.argmax() == known[video.name] for video in ours.videos if video.name in known]
    return float(np.mean(same))


def _protocol(predictions: Predictions, task: Recognition, view: ClipView, num_videos: int) -> str:
    how = "one frame of each equal segment" if view.sampling == "segments" else f"frames {view.stride} apart"
    averaged = "probabilities" if task.average == "prob" else "logits"
    return (
        f"{task.num_clips} clip{'s' * (task.num_clips > 1)} of {view.num_frames} frames ({how}), "
        f"{task.num_crops} square crop{'s' * (task.num_crops > 1)} of {view.crop} px seen at {view.size} px, "
        f"{averaged} averaged over the views; {len(predictions.videos)} of {num_videos} videos decoded. "
        "Top-k: share of videos with their class among the k of largest score. Mean class accuracy: mean over the "
        "classes that occur. mAP: average precision without interpolation, mean over the classes that occur."
    )


def predict_videos(model: StatefulNetwork, sequences: Sequence[FrameSequence], setting: Setting) -> Predictions:
    """The network's class probabilities for each video that can be decoded.

    Errors: UserError for a video of a class that the network does not know.
    """
    _require_known_classes(sequences, setting.num_classes)
    found = Predictions([], [])
    for sequence in track(sequences, "evaluating", total=len(sequences)):
        try:
            assert isinstance(model.view, ClipView)
            clips = views_of(sequence, model.view, setting)
        except UserError as error:
            found.undecodable.append(str(error))
            continue
        found.videos.append(Prediction(sequence.name, classes_of(sequence), _probabilities(model, clips, setting)))
    return found


@torch.inference_mode()
def _probabilities(model: StatefulNetwork, clips: Tensor, setting: Setting) -> NDArray[np.float32]:
    """(K,) of a video's views (V, T, 3, S, S), which run one by one, so that many views need no more memory."""
    task = setting.task
    assert isinstance(task, Recognition)
    normalise = model.normalisation or setting.normalisation
    found = []
    for clip in clips:
        outputs, _ = model(normalise(clip[None].to(setting.device)))
        found.append(task.scores(outputs)[0])
    return task.averaged(torch.stack(found)).float().cpu().numpy()


def views_of(sequence: FrameSequence, view: ClipView, setting: Setting) -> Tensor:
    """(clips · crops, T, 3, S, S) uint8: the views of a video that the task's protocol asks for."""
    task = setting.task
    assert isinstance(task, Recognition)
    choices = [_indices(len(sequence), view, (clip + 0.5) / task.num_clips) for clip in range(task.num_clips)]
    images = {index: sequence.image(index) for index in sorted({i for indices in choices for i in indices})}
    clips = [np.stack([cut(images[i]) for i in indices]) for indices in choices for cut in _crops(view, task.num_crops)]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)


def _indices(length: int, view: ClipView, phase: float) -> list[int]:
    if view.sampling == "segments":
        return segment_indices(length, num_frames=view.num_frames, phase=phase)
    return dense_indices(length, num_frames=view.num_frames, stride=view.stride, phase=phase)


def _crops(view: ClipView, num_crops: int) -> Sequence[Callable[[Image], Image]]:
    """The centred square with a margin; or three of the whole short side, along the long one."""
    if num_crops == 1:
        return [view.cut]
    return [partial(_third, place=place, size=view.crop) for place in THIRDS]


def _third(image: Image, *, place: tuple[float, float], size: int) -> Image:
    height, width = image.shape[:2]
    return cut_square(image, share=1.0, place=place if width >= height else place[::-1], size=size)
