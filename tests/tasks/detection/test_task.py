"""The detection task: what is supervised where boxes are known, unknown, or known to be none."""

import math

import pytest
import torch
from torch import Tensor

from vidistill.models.faster_rcnn import faster_rcnn_mobilenet_v3
from vidistill.ops.boxes import (
    CLASS,
    FILLER,
    boxes_in,
    encode_boxes,
    is_annotated,
    make_rows,
    not_annotated,
    stack_rows,
)
from vidistill.tasks.detection.losses import dense_losses
from vidistill.tasks.detection.task import Detection

NONE = torch.zeros(0, 6)
BOX = torch.tensor([[1.0, 0, 11, 10]])


def rows_of(boxes: Tensor, *labels: int) -> Tensor:
    return make_rows(boxes, torch.tensor(labels), torch.ones(len(labels)))


def dense_outputs(batch: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 20, 20]]).expand(batch, 3, 4)
    return {"logits": torch.randn(batch, 3, 2), "regression": torch.randn(batch, 3, 4), "anchors": anchors}


def test_a_frame_without_boxes_is_annotated_and_one_nobody_looked_at_is_not() -> None:
    rows = stack_rows([rows_of(BOX, 1), NONE, not_annotated((12, 16))])
    assert rows.shape == (3, 1, 6)
    assert is_annotated(rows).tolist() == [True, True, False]
    assert [len(boxes_in(frame)) for frame in rows] == [1, 0, 0]
    assert is_annotated(stack_rows([NONE, NONE])).tolist() == [True, True]
    assert rows[1, 0, CLASS] == FILLER
    assert rows[2, 0, :4].tolist() == [0, 0, 16, 12]


def test_frames_without_annotation_count_nothing() -> None:
    outputs = dense_outputs(4)
    labels = stack_rows([rows_of(BOX, 1), not_annotated((12, 16)), NONE, not_annotated((12, 16))])
    found = Detection(num_classes=2).supervise(outputs, labels)
    targets = [{"boxes": BOX, "labels": torch.tensor([1])}, {"boxes": BOX[:0], "labels": torch.zeros(0).long()}]
    expected = dense_losses({name: tensor[[0, 2]] for name, tensor in outputs.items()}, targets)
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name] / 2)  # of two frames, a mean over four


def test_the_focal_loss_is_the_familys() -> None:
    outputs = dense_outputs(1)
    outputs["logits"] = torch.zeros(1, 3, 2)  # every probability a half: each entropy is log 2 by 2^-gamma
    labels = stack_rows([NONE])  # six negatives, of weight 1 − alpha
    for gamma in (1.5, 2.0):
        found = Detection(num_classes=2, focal_gamma=gamma).supervise(outputs, labels)
        assert found["class"].item() == pytest.approx(6 * 0.75 * 0.5**gamma * math.log(2))
    with pytest.raises(ValueError, match="focal_gamma must be at least 0, got -1"):
        Detection(num_classes=2, focal_gamma=-1)


def test_pseudo_labels_are_the_teachers_confident_boxes_of_frames_without_annotation() -> None:
    outputs, teacher = dense_outputs(2), dense_outputs(2)
    teacher["logits"] = torch.full((2, 3, 2), -9.0)
    teacher["logits"][:, 0, 1] = 3.0  # 0.95
    teacher["logits"][:, 1, 0] = 0.0  # 0.5
    teacher["regression"] = torch.zeros(2, 3, 4)
    teacher["regression"][:, 0] = encode_boxes(torch.tensor([-5.0, 0, 8, 8]), torch.tensor([0.0, 0, 10, 10]))
    task = Detection(num_classes=2, confidence=0.9)
    found = task.supervise(outputs, stack_rows([not_annotated((64, 64)), NONE]), teacher)
    inside = torch.tensor([[0.0, 0, 8, 8]])  # clipped to the frame
    expected = Detection(num_classes=2).supervise(outputs, stack_rows([rows_of(inside, 1), NONE]))
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name])


def test_decoding_fills_up_to_the_most_of_any_frame() -> None:
    outputs = {name: tensor.clone() for name, tensor in dense_outputs(2).items()}
    outputs["regression"].zero_()
    outputs["logits"][:] = -9.0
    outputs["logits"][0, 0, 1] = math.log(0.8 / 0.2)
    outputs["logits"][0, 1, 0] = math.log(0.6 / 0.4)
    found = Detection(num_classes=2).decode(outputs, size=(56, 64))
    assert found.shape == (2, 2, 6)
    expected = torch.tensor([[0.0, 0, 10, 10, 1, 0.8], [50, 50, 60, 56, 0, 0.6]])
    torch.testing.assert_close(found[0], expected)
    assert len(boxes_in(found[1])) == 0
    assert Detection(num_classes=2, score_threshold=0.9).decode(outputs, size=(56, 64)).shape == (2, 0, 6)


def test_a_network_with_proposals_judges_the_true_boxes_and_the_teachers_proposals() -> None:
    torch.manual_seed(0)
    network = faster_rcnn_mobilenet_v3(num_classes=2, num_proposals=8).train()
    outputs = network(torch.randn(2, 3, 64, 64))
    task = Detection(num_classes=2)
    labels = stack_rows([rows_of(torch.tensor([[3.0, 5, 40, 60]]), 1), not_annotated((64, 64))])
    losses = task.supervise(outputs, labels)
    assert losses.keys() == {"objectness", "proposal_box", "region_class", "region_box"}
    assert losses["region_box"] > 0, "the true box is among the regions, though no proposal is near it"
    with torch.no_grad():
        teacher = network.eval()(torch.randn(2, 3, 64, 64))
    compared = task.compare(outputs, teacher)
    assert compared.keys() == {"teacher_class", "teacher_box", "teacher_region_class", "teacher_region_box"}
    sum([*losses.values(), *compared.values()]).backward()
    assert network.box_predictor.cls_score.weight.grad.abs().sum() > 0


def test_every_loss_has_a_weight() -> None:
    labels = stack_rows([rows_of(BOX, 1)] * 2)
    names = set(Detection.default_losses)
    outputs = dense_outputs(2)
    task = Detection(num_classes=2)
    assert set(task.supervise(outputs, labels) | task.compare(outputs, outputs)) <= names


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_classes": -1}, "num_classes must be at least 0, got -1"),
        ({"score_threshold": 2.0}, "score_threshold must be at most 1, got 2.0"),
        ({"iou_threshold": -1.0}, "iou_threshold must be at least 0, got -1.0"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"confidence": 7}, "confidence must be at most 1, got 7"),
    ],
)
def test_wrong_options(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Detection(**{"num_classes": 1} | options)
