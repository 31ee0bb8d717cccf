"""Against pycocotools on the frames of each distance, gathered by plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ops.test_detection_metrics import outside
from vidistill.data.clip import FrameSequence
from vidistill.data.datasets.synthetic import synthetic
from vidistill.models.detectors import Outputs
from vidistill.ops.normalise import Normalisation
from vidistill.stream.evaluate import evaluate
from vidistill.students.card import Card
from vidistill.students.student import HeldOutput, PerFrame
from vidistill.tasks.detection import Detection

NUM_CLASSES = 3
TASK = Detection(num_classes=NUM_CLASSES)
CARD = Card(task=TASK, normalisation=Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)))


class Oracle(nn.Module):
    """Knows the boxes of every frame, by its pixels, and says them with noise: of place, score and class."""

    def __init__(self, sequences: list[FrameSequence]) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.known: dict[bytes, Outputs] = {}
        for sequence in sequences:
            for index in range(len(sequence)):
                boxes = sequence.boxes(index)
                anchors = torch.from_numpy(boxes.xyxy + rng.normal(scale=0.5, size=boxes.xyxy.shape).astype(np.float32))
                logits = torch.from_numpy(rng.normal(-2, 1, (len(boxes), NUM_CLASSES)).astype(np.float32))
                logits[range(len(boxes)), boxes.labels] += 3
                outputs = {"logits": logits, "regression": torch.zeros_like(anchors), "anchors": anchors}
                self.known[sequence.image(index).tobytes()] = {n: tensor[None] for n, tensor in outputs.items()}

    def forward(self, frames: Tensor) -> Outputs:
        first = next(iter(self.known.values()))  # noise, on which a student is tried, has no boxes of its own
        return self.known.get(frames[0].permute(1, 2, 0).round().byte().numpy().tobytes(), first)


@pytest.fixture
def sequences() -> list[FrameSequence]:
    return list(synthetic(num_sequences=3, num_frames=7, size=(48, 64), num_classes=NUM_CLASSES, seed=3).sequences)


def frames_at(oracle: Oracle, sequences: list[FrameSequence], interval: int, distance: int) -> list[dict]:
    """Truth and what is held of the key frame, of every frame that is `distance` after one in some phase."""
    frames = []
    for sequence in sequences:
        for phase in range(interval):
            for index in range(phase, len(sequence)):
                if (index - phase) % interval == distance:
                    truth = sequence.boxes(index)
                    key = oracle.known[sequence.image(index - distance).tobytes()]
                    rows = TASK.decode(key, size=(48, 64))[0].numpy()
                    rows = rows[rows[:, 4] >= 0]
                    frames.append(
                        {
                            "boxes": truth.xyxy, "labels": truth.labels, "crowd": np.zeros(len(truth), bool),
                            "found_boxes": rows[:, :4], "found_labels": rows[:, 4].astype(int),
                            "found_scores": rows[:, 5],
                        }
                    )  # fmt: skip
    return frames


def of_class(frame: dict, label: int) -> dict:
    true, found = frame["labels"] == label, frame["found_labels"] == label
    return {name: value[found if name.startswith("found") else true] for name, value in frame.items()}


@pytest.mark.parametrize("interval", [1, 3])
def test_every_distance_is_pycocotools(tmp_path: Path, sequences: list[FrameSequence], interval: int) -> None:
    oracle = Oracle(sequences)
    found = evaluate({"hold": HeldOutput(oracle, CARD)}, sequences, TASK, intervals={"hold": interval})["hold"]
    frames = [frames_at(oracle, sequences, interval, distance) for distance in range(interval)]
    expected = [outside(some, tmp_path) for some in frames]
    for name in ("ap50", "ap"):
        values = [value[name] for value in expected]
        assert all(0.1 < value < 1 for value in values)
        assert found[f"{name}_by_distance"] == pytest.approx(values)
        assert found[name] == pytest.approx(np.mean(values))
    by_class = [outside([of_class(f, c) for f in frames[0]], tmp_path)["ap50"] for c in range(NUM_CLASSES)]
    assert [-1 if value is None else value for value in found["ap50_by_class"]] == pytest.approx(by_class)
    assert (found["num_scored"], found["num_frames"]) == (21, 21)
    assert found["num_boxes"] == sum(len(frame["labels"]) for frame in frames[0])
    assert "unknown" not in found["protocol"]


def test_agreement_takes_the_teachers_confident_boxes_for_true(sequences: list[FrameSequence]) -> None:
    oracle = Oracle(sequences)
    students = {"same": PerFrame(oracle, CARD), "hold": HeldOutput(oracle, CARD)}
    teacher = {"teacher": PerFrame(Oracle(sequences), CARD)}
    found = evaluate(students | teacher, sequences, TASK, intervals={"same": 1, "hold": 3})
    assert found["same"]["agreement"] == found["teacher"]["agreement"] == pytest.approx(1)
    assert found["hold"]["agreement_by_distance"][0] == pytest.approx(1)
    assert found["hold"]["agreement_by_distance"][2] < 1


def test_sequences_shorter_than_the_interval_say_what_is_unknown(sequences: list[FrameSequence]) -> None:
    held = HeldOutput(Oracle(sequences), CARD)
    found = evaluate({"hold": held}, sequences, TASK, intervals={"hold": 9})["hold"]
    assert found["ap50"] is None
    assert [value is None for value in found["ap50_by_distance"]] == [False] * 7 + [True] * 2
    assert "nothing to find at the distances 7, 8, so the mean is unknown" in found["protocol"]
