import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidistill.errors import UserError
from vidistill.models.libraries import import_torchvision
from vidistill.ops.boxes import encode_boxes
from vidistill.tasks.detection.losses import (
    compare_dense,
    compare_regions,
    dense_losses,
    proposal_losses,
    region_losses,
    with_true_boxes,
)

import_torchvision()
SEEDS = st.integers(0, 2**31)
NO_BOXES = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def hand_outputs() -> dict[str, Tensor]:
    """Two anchors, two classes: one on the box, one far from it."""
    anchors = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    logits = torch.tensor([[[logit(0.75), logit(0.5)], [logit(0.2), logit(0.5)]]])
    return {"logits": logits, "regression": torch.zeros(1, 2, 4), "anchors": anchors}


def test_dense_losses_worked_by_hand() -> None:
    outputs = hand_outputs()
    target = {"boxes": torch.tensor([[1.0, 0, 11, 10]]), "labels": torch.tensor([0])}
    found = dense_losses(outputs, [target], alpha=0.25, gamma=2)
    positive = 0.25 * 0.25**2 * -math.log(0.75)
    negative = 0.75 * (0.5**2 * -math.log(0.5) * 2 + 0.2**2 * -math.log(0.8))
    assert float(found["class"]) == pytest.approx(positive + negative, rel=1e-5)
    # the box is a tenth of the anchor to the right: 0.1 is below 1/9, so 0.1² / (2 / 9)
    assert float(found["box"]) == pytest.approx(0.01 * 9 / 2, rel=1e-4)
    # shared 90 of a union of 110, which its hull of 110 does not exceed
    giou = dense_losses(outputs, [target], box_loss="giou")["box"]
    assert float(giou) == pytest.approx(1 - 90 / 110, rel=1e-4)


def test_a_frame_without_boxes_is_background() -> None:
    outputs = {name: value.requires_grad_() for name, value in hand_outputs().items()}
    found = dense_losses(outputs, [NO_BOXES], alpha=0.25, gamma=0)
    probabilities = [0.75, 0.5, 0.2, 0.5]
    assert found["class"].item() == pytest.approx(-0.75 * sum(math.log(1 - p) for p in probabilities), rel=1e-5)
    assert found["box"].item() == 0
    sum(found.values()).backward()
    assert torch.isfinite(outputs["logits"].grad).all()
    for box_loss in ("smooth_l1", "giou"):
        assert dense_losses(outputs, [NO_BOXES], box_loss=box_loss)["box"].item() == 0


def test_frames_weigh_the_same_alone_and_together() -> None:
    torch.manual_seed(0)
    outputs = {name: value.expand(2, -1, -1) for name, value in hand_outputs().items()}
    outputs["regression"] = torch.randn(2, 2, 4)
    targets = [{"boxes": torch.tensor([[1.0, 0, 11, 10]]), "labels": torch.tensor([1])}, NO_BOXES]
    together = dense_losses(outputs, targets)
    alone = [dense_losses({n: v[i : i + 1] for n, v in outputs.items()}, targets[i : i + 1]) for i in range(2)]
    for name, loss in together.items():
        torch.testing.assert_close(loss, (alone[0][name] + alone[1][name]) / 2)


def test_centreness_worked_by_hand() -> None:
    anchors = torch.tensor([[[0.0, 0, 8, 8]]])
    outputs = {
        "logits": torch.zeros(1, 1, 1), "regression": torch.zeros(1, 1, 4), "anchors": anchors,
        "centreness": torch.full((1, 1, 1), logit(0.5)),
    }  # fmt: skip
    # the point (4, 4) is 3 from the left, 9 from the right, 4 from top and bottom of the box
    target = {"boxes": torch.tensor([[1.0, 0, 13, 8]]), "labels": torch.tensor([0])}
    assert float(dense_losses(outputs, [target])["centreness"]) == pytest.approx(-math.log(0.5), rel=1e-5)
    outputs["centreness"] = torch.full((1, 1, 1), logit(math.sqrt(1 / 3)))
    p = math.sqrt(1 / 3)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)  # the least there is: the network is right
    assert float(dense_losses(outputs, [target])["centreness"]) == pytest.approx(entropy, rel=1e-5)


def random_boxes(generator: torch.Generator, count: int) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([corner, corner + 6 + torch.rand(count, 2, generator=generator) * 30], dim=1)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_proposal_losses_are_torchvisions(seed: int, count: int) -> None:
    from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead

    generator = torch.Generator().manual_seed(seed)
    anchors, boxes = random_boxes(generator, 30), random_boxes(generator, count)
    logits = torch.randn(1, 30, 1, generator=generator)
    regression = torch.randn(1, 30, 4, generator=generator)
    top = {"training": 9, "testing": 9}
    library = RegionProposalNetwork(
        AnchorGenerator(), RPNHead(4, 3), 0.7, 0.3, 256, 0.5, top, top, 0.7
    )  # fmt: skip
    labels, matched = library.assign_targets_to_anchors([anchors], [{"boxes": boxes}])
    wanted = library.box_coder.encode(matched, [anchors]) if count else [torch.zeros(30, 4)]
    objectness, box = library.compute_loss(logits, regression.flatten(0, 1), labels, wanted)
    target = {"boxes": boxes, "labels": torch.zeros(count, dtype=torch.int64)}
    outputs = {"logits": logits, "regression": regression, "anchors": anchors[None]}
    found = proposal_losses(outputs, [target])  # all 30 anchors are drawn, or half of the positives' room
    torch.testing.assert_close(found["objectness"], objectness, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["proposal_box"], box, atol=1e-4, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_region_losses_are_torchvisions(seed: int) -> None:
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.models.detection.roi_heads import fastrcnn_loss
    from torchvision.ops import box_iou

    generator = torch.Generator().manual_seed(seed)
    proposals, boxes = random_boxes(generator, 20), random_boxes(generator, 3)
    labels = torch.randint(0, 2, (3,), generator=generator)
    logits = torch.randn(1, 20, 3, generator=generator)
    weighted = torch.randn(20, 12, generator=generator)  # torchvision's, background first
    matched = Matcher(0.5, 0.5)(box_iou(boxes, proposals))
    classes = torch.where(matched >= 0, labels[matched.clamp(min=0)] + 1, 0)
    wanted = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes[matched.clamp(min=0)], proposals)
    expected = fastrcnn_loss(logits[0], weighted, [classes], [wanted])
    weights = torch.tensor([10.0, 10, 5, 5])
    regions = {"region_logits": logits, "region_regression": (weighted.reshape(1, 20, 3, 4) / weights)[:, :, 1:]}
    padded = torch.cat([proposals, torch.zeros(4, 4)])[None]
    regions = {name: torch.cat([v, torch.zeros(1, 4, *v.shape[2:])], dim=1) for name, v in regions.items()}
    found = region_losses(regions, padded, [{"boxes": boxes, "labels": labels}], num_sampled=80)
    torch.testing.assert_close(found["region_class"], expected[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["region_box"], expected[1], atol=1e-5, rtol=1e-4)


def test_frames_without_boxes_train_the_background_of_both_stages() -> None:
    outputs = {"logits": torch.zeros(1, 9, 1), "regression": torch.zeros(1, 9, 4), "anchors": torch.rand(1, 9, 4)}
    found = proposal_losses(outputs, [NO_BOXES])
    assert float(found["objectness"]) == pytest.approx(math.log(2))
    assert float(found["proposal_box"]) == 0
    regions = {"region_logits": torch.zeros(1, 2, 4), "region_regression": torch.zeros(1, 2, 3, 4)}
    proposals = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 0, 0]]])
    found = region_losses(regions, proposals, [NO_BOXES])
    assert float(found["region_class"]) == pytest.approx(math.log(4))
    assert float(found["region_box"]) == 0


def test_sampling_keeps_its_shares() -> None:
    torch.manual_seed(0)
    box = torch.tensor([[0.0, 0, 10, 10]])
    anchors = torch.cat([box.expand(30, 4), box.expand(30, 4) + 100])[None]
    outputs = {"logits": torch.zeros(1, 60, 1), "regression": torch.zeros(1, 60, 4), "anchors": anchors}
    outputs["logits"][0, :30] = logit(0.9)
    found = proposal_losses(outputs, [{"boxes": box, "labels": torch.tensor([0])}], num_sampled=16)
    expected = (8 * -math.log(0.9) + 8 * -math.log(0.5)) / 16
    assert float(found["objectness"]) == pytest.approx(expected, rel=1e-5)


def test_true_boxes_come_behind_the_proposals() -> None:
    proposals = torch.ones(2, 3, 4)
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    found = with_true_boxes(proposals, [{"boxes": boxes, "labels": torch.zeros(2).long()}, NO_BOXES])
    assert found.shape == (2, 5, 4)
    assert found[0, 3:].tolist() == boxes.tolist()
    assert (found[1, 3:] == 0).all()


def test_comparing_dense_outputs_worked_by_hand() -> None:
    teacher = {"logits": torch.tensor([[[logit(0.9), logit(0.5)], [logit(0.1), logit(0.1)]]])}
    teacher["regression"] = torch.zeros(1, 2, 4)
    student = {"logits": torch.zeros(1, 2, 2), "regression": torch.tensor([[[1.0, 0, 0, 0], [0, 0.1, 0, 0]]])}
    found = compare_dense(student, teacher)

    def gap(p: float) -> float:
        return p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)

    total = 0.9 + 0.1  # of the confidences
    assert float(found["teacher_class"]) == pytest.approx((gap(0.9) + 0 + 2 * gap(0.1)) / total, rel=1e-5)
    box = 0.9 * (1 - 1 / 18) + 0.1 * (0.01 * 9 / 2)
    assert float(found["teacher_box"]) == pytest.approx(box / total, rel=1e-5)


def test_comparing_regions_worked_by_hand() -> None:
    teacher = {"region_logits": torch.log(torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]))}
    teacher["region_regression"] = torch.zeros(1, 2, 1, 4)
    student = {
        "region_logits": torch.zeros(1, 2, 2),
        "region_regression": torch.tensor([[[[0.1, 0, 0, 0]], [[9.0] * 4]]]),
    }
    proposals = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 0, 0]]])  # the second is none
    found = compare_regions(student, teacher, proposals)
    expected = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    assert float(found["teacher_region_class"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["teacher_region_box"]) == pytest.approx(0.8 * (1 - 1 / 18), rel=1e-5)  # 0.1 · 10; 1 at least


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.booleans())
def test_equal_outputs_do_not_differ_and_no_gradient_reaches_the_teacher(seed: int, centred: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "logits": 4 * torch.randn(2, 7, 3, generator=generator),
        "regression": torch.randn(2, 7, 4, generator=generator),
        "region_logits": 4 * torch.randn(2, 5, 4, generator=generator),
        "region_regression": torch.randn(2, 5, 3, 4, generator=generator),
    }
    if centred:
        outputs["centreness"] = torch.randn(2, 7, 1, generator=generator)
    proposals = torch.tensor([0.0, 0, 1, 1]).expand(2, 5, 4)
    equal = compare_dense(outputs, outputs) | compare_regions(outputs, outputs, proposals)
    assert all(float(loss) == pytest.approx(0, abs=1e-6) for loss in equal.values())
    student = {
        name: (value + 1 + torch.randn(value.shape, generator=generator)).requires_grad_()
        for name, value in outputs.items()
    }
    teacher = {name: value.clone().requires_grad_() for name, value in outputs.items()}
    found = compare_dense(student, teacher) | compare_regions(student, teacher, proposals)
    assert all(loss.item() > 0 for loss in found.values())
    sum(found.values()).backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in student.values())
    assert all(value.grad is None for value in teacher.values())


def test_a_right_network_has_no_box_loss() -> None:
    generator = torch.Generator().manual_seed(3)
    anchors = random_boxes(generator, 12)
    boxes = anchors[:2] + 0.5
    outputs = {"logits": torch.zeros(1, 12, 1), "anchors": anchors[None], "regression": torch.zeros(1, 12, 4)}
    target = {"boxes": boxes, "labels": torch.zeros(2, dtype=torch.int64)}
    from vidistill.ops.boxes import match_anchors

    matched = match_anchors(anchors, boxes, background=0.5).clamp(min=0)
    outputs["regression"] = encode_boxes(boxes[matched], anchors)[None]
    for box_loss in ("smooth_l1", "giou"):
        assert float(dense_losses(outputs, [target], box_loss=box_loss)["box"]) == pytest.approx(0, abs=1e-5)


def test_detectors_of_other_kinds_are_not_compared() -> None:
    def outputs(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
        return {name: torch.zeros(2, *shape) for name, shape in shapes.items()}

    one_stage = outputs(logits=(50, 3), regression=(50, 4))
    two_stages = outputs(logits=(70, 1), regression=(70, 4), region_logits=(9, 4))
    with pytest.raises(UserError, match=r"student's logits are \(50, 3\) and the teacher's \(70, 1\)"):
        compare_dense(one_stage, two_stages)
    with pytest.raises(UserError, match=r"centreness are none and the teacher's \(50, 1\)"):
        compare_dense(one_stage, one_stage | outputs(centreness=(50, 1)))
    with pytest.raises(UserError, match=r"region_logits are \(4,\) and the teacher's \(6,\)"):
        compare_dense(two_stages, two_stages | outputs(region_logits=(12, 6)))
    assert compare_dense(two_stages, two_stages | outputs(region_logits=(12, 4)))["teacher_class"] == 0
    anchored = one_stage | {"anchors": torch.rand(1, 50, 4)}
    assert compare_dense(anchored, anchored)["teacher_class"] == 0
    with pytest.raises(UserError, match="anchors are not the teacher's, so their boxes cannot be compared"):
        compare_dense(anchored, anchored | {"anchors": anchored["anchors"] * 4 / 3})
