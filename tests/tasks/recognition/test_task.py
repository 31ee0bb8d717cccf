import math

import pytest
import torch
from torch.nn import functional as F

from vidistill.tasks.recognition.task import Recognition

LOGITS = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # the first is sure of class 0, ¾ to ¼
FIRST, SECOND, NONE, BOTH = ([1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0])


def loss_of(labels: list[list[float]], **options) -> float:
    return Recognition(num_classes=2, **options).supervise(LOGITS, torch.tensor(labels))["task"].item()


def test_cross_entropy_by_hand_and_by_torch() -> None:
    assert loss_of([FIRST, SECOND]) == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    logits, classes = torch.randn(7, 5), torch.randint(0, 5, (7,))
    found = Recognition(num_classes=5).supervise(logits, F.one_hot(classes, 5))["task"]
    torch.testing.assert_close(found, F.cross_entropy(logits, classes))


def test_several_classes_share_the_target() -> None:
    assert loss_of([BOTH, SECOND]) == pytest.approx(
        (-0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4) - math.log(1 / 2)) / 2
    )


def test_an_unlabelled_clip_counts_0() -> None:
    assert loss_of([FIRST, NONE]) == pytest.approx(-math.log(3 / 4) / 2)


@pytest.mark.parametrize("num_known", [0, 1, 3])
def test_data_of_another_number_of_classes_without_labels(num_known: int) -> None:
    logits = LOGITS.clone().requires_grad_()
    task = Recognition(num_classes=2, confidence=0.7)
    loss = task.supervise(logits, torch.zeros(2, num_known))["task"]
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0
    pseudo = task.supervise(LOGITS, torch.zeros(2, num_known), LOGITS)["task"].item()
    assert pseudo == pytest.approx(-math.log(3 / 4) / 2)


def test_pseudo_labels_where_the_teacher_is_sure_and_nothing_is_known() -> None:
    task = Recognition(num_classes=2, confidence=0.7)
    teacher = torch.tensor([[0.0, 5.0], [0.0, 0.1]], requires_grad=True)  # sure of class 1; of nothing
    found = task.supervise(LOGITS, torch.tensor([NONE, NONE]), teacher)["task"]
    assert found.item() == pytest.approx(-math.log(1 / 4) / 2)
    given = task.supervise(LOGITS, torch.tensor([FIRST, SECOND]), teacher)["task"]
    assert given.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2), "labels go before"
    assert loss_of([NONE, NONE], confidence=0.7) == 0, "no teacher, no pseudo-labels"


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_by_hand(temperature: float) -> None:
    teacher = torch.zeros(2, 2)
    root = 3 ** (1 / temperature)
    p, q = root / (root + 1), 1 / (root + 1)
    expected = temperature**2 * (0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / q)) / 2  # 0 on the second clip
    found = Recognition(num_classes=2, temperature=temperature).compare(LOGITS, teacher)["teacher"].item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_views_are_averaged_as_probabilities_or_as_logits() -> None:
    views = [LOGITS[:1], {"logits": LOGITS[1:]}]
    mean = Recognition(num_classes=2).probabilities(views)
    assert mean.tolist() == pytest.approx([(3 / 4 + 1 / 2) / 2, (1 / 4 + 1 / 2) / 2])
    root = math.sqrt(3)
    of_mean_logits = Recognition(num_classes=2, average="score").probabilities(views)
    assert of_mean_logits.tolist() == pytest.approx([root / (root + 1), 1 / (root + 1)])


def test_predictions_are_probabilities_whatever_wraps_the_logits() -> None:
    task = Recognition(num_classes=2)
    for outputs in (LOGITS, {"logits": LOGITS}):
        assert task.decode(outputs, size=(5, 9)).flatten().tolist() == pytest.approx([0.75, 0.25, 0.5, 0.5])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_classes": -1}, "num_classes must be at least 0, got -1"),
        ({"temperature": 0.0}, "temperature must be at least 1e-06, got 0.0"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"confidence": 1.5}, "confidence must be at most 1, got 1.5"),
    ],
)
def test_options_out_of_range(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recognition(**{"num_classes": 2, **options})


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1, whose softmax is always 1"):
        Recognition(num_classes=1)
