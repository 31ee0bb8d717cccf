"""Against a plain version that holds everything in memory and loops."""

import numpy as np
import pytest
import torch

from vidistill.methods.delta import Delta
from vidistill.ops.flow import estimate_correspondence
from vidistill.ops.normalise import Normalisation
from vidistill.stream.evaluate import evaluate
from vidistill.students.card import Card
from vidistill.students.student import HeldOutput, PerFrame, Student
from vidistill.tasks.segmentation import Segmentation

TASK = Segmentation(num_classes=4)
CARD = Card(task=TASK)


def predictions(model: Student, images, interval: int, phase: int) -> dict[int, np.ndarray]:
    """By frame, of a stream whose first key frame is `phase`."""
    state, found = None, {}
    for t in range(phase, len(images)):
        frame = Normalisation()(torch.from_numpy(images[t]).permute(2, 0, 1)[None])
        with torch.no_grad():
            outputs, state = model(frame, None if (t - phase) % interval == 0 else state)
        found[t] = TASK.decode(outputs, size=images[t].shape[:2])[0].numpy()
    return found


def miou(labels: list[np.ndarray], found: list[np.ndarray]) -> float:
    labels, found = np.concatenate([x.ravel() for x in labels]), np.concatenate([x.ravel() for x in found])
    per_class = []
    for k in range(4):
        tp = ((labels == k) & (found == k)).sum()
        per_class.append(tp / max(1, (labels == k).sum() + ((found == k) & (labels != 255)).sum() - tp))
    return float(np.mean(per_class))


@pytest.mark.parametrize("interval", [1, 3])
def test_every_figure_against_the_plain_version(network, dataset, interval: int) -> None:
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 32, 48), card=CARD))
    teacher = PerFrame(network, CARD)
    both = {"student": student, "teacher": teacher}
    found = evaluate(both, dataset.sequences, TASK, intervals={"student": interval})["student"]

    by_distance = [([], []) for _ in range(interval)]
    agree = [[] for _ in range(interval)]
    firsts, seconds, flips = [], [], []
    for sequence in dataset.sequences:
        images = list(sequence.images())
        reference = predictions(teacher, images, 1, 0)
        for phase in range(interval):
            stream = predictions(student, images, interval, phase)
            for t, prediction in stream.items():
                distance = (t - phase) % interval
                by_distance[distance][0].append(sequence.labels(t))
                by_distance[distance][1].append(prediction)
                agree[distance].append(prediction == reference[t])
                if t + 1 in stream:
                    flow = estimate_correspondence(images[t], images[t + 1])
                    firsts.append(np.where(flow.visible, prediction, 255))
                    seconds.append(flow.carry_back(stream[t + 1]))
                    still = np.abs(images[t].astype(int) - images[t + 1]).max(axis=-1) <= 2
                    flips.append((prediction != stream[t + 1])[still])
    expected = [miou(*pairs) for pairs in by_distance]
    assert found["miou_by_distance"] == pytest.approx(expected)
    assert found["miou"] == pytest.approx(np.mean(expected))
    assert found["agreement_by_distance"] == pytest.approx([np.concatenate(a).mean() for a in agree])
    assert found["flip_rate"] == pytest.approx(np.concatenate([f.ravel() for f in flips]).mean())
    present = [
        k
        for k in range(4)
        if any((x == k).any() for x in firsts)
        or any(((b == k) & (a != 255)).any() for a, b in zip(firsts, seconds, strict=True))
    ]
    assert found["temporal_consistency"] == pytest.approx(miou(firsts, seconds) * 4 / len(present))
    assert found["num_scored"] == found["num_frames"] == 10


def test_without_labels_or_teacher_the_figures_are_unknown(network, dataset) -> None:
    class Unlabelled:
        def __init__(self, sequence) -> None:
            self.sequence = sequence

        def __len__(self) -> int:
            return len(self.sequence)

        def images(self):
            return self.sequence.images()

        def labels(self, index: int) -> None:
            return None

    found = evaluate({"student": PerFrame(network, CARD)}, [Unlabelled(dataset.sequences[0])], TASK)["student"]
    assert found["miou"] is None
    assert found["agreement"] is None
    assert found["num_scored"] == 0
    assert found["num_frames"] == 5


def test_holding_the_output_is_the_teacher_earlier(network, dataset) -> None:
    sequence = dataset.sequences[0]
    found = evaluate({"hold": HeldOutput(network, CARD)}, [sequence], TASK, intervals={"hold": 3})["hold"]
    teacher = predictions(PerFrame(network), list(sequence.images()), 1, 0)
    expected = miou([sequence.labels(t) for t in range(2, 5)], [teacher[t - 2] for t in range(2, 5)])
    assert found["miou_by_distance"][2] == pytest.approx(expected)
