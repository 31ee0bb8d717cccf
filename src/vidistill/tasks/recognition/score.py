"""Recognition's metrics: a network of clips over videos with a class each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vidistill.config import Values
from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sampling import dense_indices, segment_indices
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs
from vidistill.ops.classification import confusion, mean_average_precision, mean_class_accuracy, top_k_accuracy
from vidistill.ops.clip_view import ClipView, cut_square
from vidistill.report.table import Metric
from vidistill.tasks.contract import Scores

THIRDS = ((0.5, 0.0), (0.5, 0.5), (0.5, 1.0))  # of the room beside a square, for three crops

METRICS = (
    Metric(
        "top1", "top-1 accuracy", name="top-1 accuracy",
        sentence="the student keeps {share} of the teacher's top-1 accuracy",
    ),
    Metric("top5", "top-5 accuracy"),
    Metric("mean_class_accuracy", "mean class accuracy"),
    Metric(
        "map", "mean average precision", name="mean average precision",
        sentence="the student keeps {share} of the teacher's mean average precision",
    ),
    Metric(
        "agreement", "agreement with the teacher", name="agreement with the teacher", is_agreement=True,
        sentence="the student agrees with the teacher on {student:.3f} of the videos",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class LabelledVideo:
    """A video's name and class ids, none where it is unlabelled."""

    name: str
    classes: tuple[int, ...]


class RecognitionScores(Scores[LabelledVideo]):
    """What a network says of each video that can be decoded.

    probabilities: of the outputs of a video's views, (K,). protocol: how a video is seen, in words.
    """

    def __init__(
        self,
        probabilities: Callable[[Sequence[NetworkOutputs]], Tensor],
        protocol: str,
        *,
        num_classes: int,
        multi_label: bool,
    ) -> None:
        self.protocol, self.num_classes, self.multi_label = protocol, num_classes, multi_label
        self._probabilities = probabilities
        self._videos: list[tuple[LabelledVideo, NDArray[np.float32]]] = []
        self._agrees: list[bool] = []
        self._undecodable: list[str] = []

    def add_clips(
        self, truth: LabelledVideo, outputs: Sequence[NetworkOutputs], reference: Sequence[NetworkOutputs] | None
    ) -> None:
        probabilities = self._probabilities(outputs).float().cpu().numpy()
        self._videos.append((truth, probabilities))
        if reference is not None:
            self._agrees.append(probabilities.argmax() == int(self._probabilities(reference).argmax()))

    def leave_out(self, error: UserError) -> None:
        self._undecodable.append(str(error))

    def metrics(self) -> Values:
        """`predictions` has a row for each video: its name, its classes, the class of largest probability.

        Raises:
            UserError: no video could be decoded.
        """
        num_videos = len(self._videos) + len(self._undecodable)
        if not self._videos:
            raise UserError(f"none of the {num_videos} videos can be scored: {', '.join(self._undecodable[:1])}")
        return {
            **self._accuracies(),
            "agreement": float(np.mean(self._agrees)) if self._agrees else None,
            "undecodable": self._undecodable,
            "predictions": [[video.name, list(video.classes), int(p.argmax())] for video, p in self._videos],
            "num_frames": num_videos,
            "protocol": (
                f"{self.protocol}; {len(self._videos)} of {num_videos} videos decoded. "
                "Top-k: share of videos with their class among the k of largest score. Mean class accuracy: mean over "
                "the classes that occur. mAP: average precision without interpolation, mean over those classes."
            ),
        }

    def _accuracies(self) -> Values:
        """Over the videos that have labels; None where none has."""
        metrics: Values = dict.fromkeys(("top1", "top5", "mean_class_accuracy", "map", "confusion"))
        labelled = [(video, probabilities) for video, probabilities in self._videos if video.classes]
        if not labelled:
            return {**metrics, "num_scored": 0}
        scores = np.stack([probabilities for _, probabilities in labelled])  # (N, K)
        labels = np.zeros_like(scores)
        for row, (video, _) in zip(labels, labelled, strict=True):
            row[list(video.classes)] = 1
        if self.multi_label:
            metrics["map"] = mean_average_precision(scores, labels)
        else:
            metrics["top1"] = top_k_accuracy(scores, labels, k=1)
            metrics["top5"] = top_k_accuracy(scores, labels, k=5) if scores.shape[1] > 5 else None
            metrics["mean_class_accuracy"] = mean_class_accuracy(scores, labels)
            metrics["confusion"] = confusion(scores, labels).tolist()
        return {**metrics, "num_scored": len(labelled)}


def views_of(sequence: FrameSequence, view: ClipView, *, num_clips: int, num_crops: int) -> NDArray[np.uint8]:
    """(clips · crops, T, S, S, 3): the views of a video that the protocol asks for."""
    choices = [_indices(len(sequence), view, (clip + 0.5) / num_clips) for clip in range(num_clips)]
    images = {index: sequence.image(index) for index in sorted({i for indices in choices for i in indices})}
    return np.stack(
        [np.stack([cut(images[i]) for i in indices]) for indices in choices for cut in _crops(view, num_crops)]
    )


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
