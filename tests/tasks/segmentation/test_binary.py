"""One logit a pixel: foreground against background, worked by hand; and from masks to a page, through every verb."""

import math

import numpy as np
import pytest
import torch

from vidistill.data.clip import IGNORED
from vidistill.errors import UserError
from vidistill.tasks.contract import StreamOutput
from vidistill.tasks.segmentation.score import SegmentationScores, SegmentationTruth
from vidistill.tasks.segmentation.task import Segmentation

TASK = Segmentation(num_classes=1)
SOFT = Segmentation(num_classes=1, soft=True)
LOGITS = torch.tensor([[[[math.log(3.0), -math.log(4.0)]]]])  # foreground with 3/4 and with 1/5


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


# Losses


def test_binary_cross_entropy_by_hand() -> None:
    loss = TASK.supervise(LOGITS, torch.tensor([[[1, 0]]]))["task"].item()
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)
    weighted = Segmentation(num_classes=1, class_weights=[1.0, 3.0]).supervise(LOGITS, torch.tensor([[[1, 0]]]))
    assert weighted["task"].item() == pytest.approx(-(3 * math.log(3 / 4) + math.log(4 / 5)) / 2)
    ignored = TASK.supervise(LOGITS.repeat(2, 1, 1, 1), torch.tensor([[[1, 255]], [[255, 255]]]))["task"].item()
    assert ignored == pytest.approx(-math.log(3 / 4) / 2), "mean over a frame's labelled pixels, then over two frames"


def test_the_gradient_is_probability_minus_label() -> None:
    logits = LOGITS.clone().requires_grad_()
    TASK.supervise(logits, torch.tensor([[[1, 0]]]))["task"].backward()
    assert logits.grad.flatten().tolist() == pytest.approx([(3 / 4 - 1) / 2, (1 / 5 - 0) / 2])


def test_divergence_of_bernoulli_distributions_by_hand() -> None:
    teacher = torch.zeros_like(LOGITS)  # undecided: 1/2
    expected = sum(0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p)) for p in (3 / 4, 1 / 5)) / 2
    assert TASK.compare(LOGITS, teacher)["teacher"].item() == pytest.approx(expected)


def test_pseudo_labels_where_the_teacher_is_sure() -> None:
    task = Segmentation(num_classes=1, confidence=0.78)
    unlabelled = torch.full((1, 1, 2), IGNORED)
    assert task.with_pseudo_labels(unlabelled, LOGITS, 0.78).tolist() == [[[255, 0]]], "3/4 is not sure enough"
    loss = task.supervise(torch.zeros(1, 1, 1, 2), unlabelled, LOGITS)["task"].item()
    assert loss == pytest.approx(math.log(2))


# Predictions


def test_decoding_is_the_sign_of_the_enlarged_logit() -> None:
    logits = torch.randn(2, 1, 5, 7)
    enlarged = torch.nn.functional.interpolate(logits, size=(20, 30), mode="bilinear")[:, 0]
    for outputs in (logits, logits[:, 0], {"out": logits}):
        found = TASK.decode(outputs, size=(20, 30))
        assert found.dtype == torch.uint8
        assert torch.equal(found, (enlarged > 0).byte())
    assert 0.2 < found.float().mean() < 0.8
    expected = np.rint(255 * sigmoid(enlarged.numpy()))
    soft = SOFT.decode(logits, size=(20, 30))
    assert soft.dtype == torch.uint8
    assert np.abs(soft.numpy() - expected).max() <= 1, "what rounds at a half may round either way"
    assert ((soft > 127) == (found == 1)).all()


def test_what_is_unsure_is_unknown() -> None:
    task = Segmentation(num_classes=1, unsure_below=0.78)
    assert task.decode(LOGITS, size=(1, 2)).tolist() == [[[255, 0]]]
    assert SOFT.as_labeller(0.78).decode(LOGITS, size=(1, 2)).tolist() == [[[255, 0]]], "labels are never soft"


@pytest.mark.parametrize(
    ("num_classes", "channels", "message"),
    [
        (1, 2, r"num_classes: 1 must return logits \(B, 1, h, w\), got \(1, 2, 3, 4\)"),
        (4, 1, r"num_classes: 4 must return logits \(B, 4, h, w\), got \(1, 1, 3, 4\)"),
        (2, 19, r"num_classes: 2 must return .* got \(1, 19, 3, 4\)"),
    ],
)
def test_other_channels_are_refused(num_classes: int, channels: int, message: str) -> None:
    task, outputs, labels = Segmentation(num_classes=num_classes), torch.randn(1, channels, 3, 4), torch.ones(1, 3, 4)
    fitting = torch.randn(1, num_classes, 3, 4)
    for call in (
        lambda: task.decode(outputs, size=(6, 8)),
        lambda: task.supervise(outputs, labels.long()),
        lambda: task.compare(outputs, fitting),
        lambda: task.compare(fitting, outputs),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_a_sigmoid_at_the_end_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Sigmoid())
    with pytest.raises(UserError, match="must return logits, got the outputs of a sigmoid"):
        TASK.supervise(network(torch.randn(1, 3, 3, 4)), torch.ones(1, 3, 4).long())
    with torch.no_grad(), pytest.raises(UserError, match="must return logits, got the outputs of a sigmoid"):
        TASK.compare(torch.randn(1, 1, 3, 4), network(torch.randn(1, 3, 3, 4)))


def test_two_channels_of_a_softmax_are_two_classes() -> None:
    task, outputs = Segmentation(num_classes=2), torch.randn(1, 2, 3, 4)
    assert torch.equal(task.decode(outputs, size=(3, 4)), outputs.argmax(dim=1).byte())
    one = outputs[:, 1:] - outputs[:, :1]
    assert torch.equal(TASK.decode(one, size=(3, 4)), outputs.argmax(dim=1).byte()), "the same as one logit"
    labels = torch.randint(0, 2, (1, 3, 4))
    assert TASK.supervise(one, labels)["task"].item() == pytest.approx(task.supervise(outputs, labels)["task"].item())


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="1 class_weights for 2 classes"):
        Segmentation(num_classes=1, class_weights=[1.0])
    with pytest.raises(ValueError, match="num_classes must be 1, got 3"):
        Segmentation(num_classes=3, soft=True)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), ["background", "foreground"]),
        (("person",), ["background", "person"]),
        (("road", "lane"), ["road", "lane"]),
    ],
)
def test_names_of_both(given: tuple[str, ...], names: list[str]) -> None:
    assert TASK.naming(given, ()).names(TASK.num_ids) == names
    assert Segmentation(num_classes=3).naming((), ()).names(3) == ["0", "1", "2"]


# Scores


def scored(task: Segmentation, frames: list[dict]) -> dict:
    """The metrics of frames {labels, prediction, reference, before}, each a distance of its own."""
    scores = task.scores(interval=len(frames), view=None)
    image = np.zeros((2, 2, 3), np.uint8)
    for distance, frame in enumerate(frames):
        arrays = {name: np.array(values, np.uint8) for name, values in frame.items()}
        truth = SegmentationTruth(image, image, arrays.pop("labels", None))
        scores.add(truth, distance=distance, **arrays)
    return scores.metrics()


def test_scores_by_hand() -> None:
    labels = [[1, 1], [0, 255]]
    found = scored(
        TASK,
        [
            {"labels": labels, "prediction": [[1, 0], [0, 1]], "reference": [[1, 1], [0, 1]]},
            {"labels": labels, "prediction": [[1, 1], [1, 0]], "reference": [[1, 1], [0, 0]]},
        ],
    )
    assert found["foreground_iou_by_distance"] == pytest.approx([1 / 2, 2 / 3])
    assert found["background_iou_by_distance"] == pytest.approx([1 / 2, 0])
    assert found["foreground_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["miou_by_distance"] == pytest.approx([1 / 2, 1 / 3])
    assert found["agreement_by_distance"] == pytest.approx([3 / 4, 3 / 4])
    assert found["foreground_agreement_by_distance"] == pytest.approx([2 / 3, 2 / 3])
    assert found["soft_error"] is found["soft_gap"] is None


def test_agreement_on_nothing_is_unknown() -> None:
    nothing, something = [[0, 0], [0, 0]], [[0, 0], [0, 1]]
    found = scored(TASK, [{"labels": nothing, "prediction": nothing, "reference": nothing, "before": nothing}])
    assert found["agreement"] is found["foreground_agreement"] is found["temporal_consistency"] is None
    assert found["foreground_iou"] is found["foreground_f1"] is None
    assert found["background_iou"] == 1
    found = scored(TASK, [{"labels": something, "prediction": nothing, "reference": something, "before": nothing}])
    assert found["foreground_agreement"] == found["foreground_iou"] == found["foreground_f1"] == 0
    assert found["agreement"] == 3 / 4
    many = scored(Segmentation(num_classes=5), [{"prediction": [[3, 3], [3, 3]], "reference": [[3, 3], [3, 3]]}])
    assert many["agreement"] is None, "nor do several classes of which one is seen"


def test_an_unsure_pixel_is_right_for_no_class() -> None:
    found = scored(TASK, [{"labels": [[1, 1], [0, 0]], "prediction": [[1, 255], [255, 0]], "before": [[1, 1], [0, 0]]}])
    assert found["foreground_iou"] == found["background_iou"] == 1 / 2
    assert found["foreground_f1"] == pytest.approx(2 / 3)
    assert found["temporal_consistency"] == 1 / 2


def test_soft_scores_by_hand() -> None:
    frame = {"labels": [[1, 0], [0, 255]], "prediction": [[255, 51], [204, 9]], "reference": [[204, 51], [0, 9]]}
    found = scored(SOFT, [frame])
    assert found["soft_error"] == pytest.approx((0 + 0.2 + 0.8) / 3)
    assert found["soft_gap"] == pytest.approx((0.2 + 0 + 0.8 + 0) / 4)
    assert found["foreground_iou"] == 1 / 2
    assert found["foreground_agreement"] == 1 / 2
    assert isinstance(SOFT.scores(interval=1, view=None), SegmentationScores)


# Pictures


def output(prediction: list[list[int]]) -> StreamOutput:
    image = np.full((60, 80, 3), 100, np.uint8)
    return StreamOutput(0, None, image, np.array(prediction, np.uint8).repeat(30, 0).repeat(40, 1), True, 1.0)


def test_the_foreground_alone_is_painted() -> None:
    look = TASK.look(TASK.naming((), ()))
    shown, drawn = output([[0, 0], [0, 1]]), look.draw(output([[0, 0], [0, 1]]))
    assert (drawn[40:, :39] == 100).all()
    assert (drawn[40:, 41:] == np.rint(0.45 * 100 + 0.55 * np.array([0, 190, 255]))).all()
    assert look.describe(shown) == {"shares": {"background": 0.75, "foreground": 0.25}}
    assert np.unique(look.image(shown)).tolist() == [0, 255]


def test_a_soft_mask_is_painted_as_strongly_as_it_is_sure() -> None:
    look, shown = SOFT.look(SOFT.naming((), ())), output([[0, 51], [204, 255]])
    drawn = look.draw(shown)
    for row, column, share in ((40, 10, 0.8), (40, 60, 1.0), (25, 60, 0.2)):
        strength = 0.55 * share
        expected = np.rint((1 - strength) * 100 + strength * np.array([0, 190, 255]))
        assert np.abs(drawn[row, column] - expected).max() <= 1
    assert look.describe(shown) == {"shares": {"background": 0.5, "foreground": 0.5}, "probability": 0.5}
    assert (look.image(shown) == shown.prediction).all()
