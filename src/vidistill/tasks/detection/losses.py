"""What detectors train on: losses against boxes, and against a teacher's outputs without any.

Outputs are those of `models.detectors.Detector`. Every loss is a mean over frames of what is summed over a frame and
divided by a number of that frame's own, so that splitting a batch among processes does not change it.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.detectors import Outputs, is_proposal
from vidistill.models.libraries import import_torchvision
from vidistill.ops.boxes import BACKGROUND, BETWEEN, decode_boxes, encode_boxes, match_anchors, match_points

BoxLoss = Literal["smooth_l1", "giou"]
SMOOTH_L1_BETA = 1 / 9  # where the smooth L1 of offsets turns linear: torchvision's, and Detectron's
REGION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of a region's offsets in its loss: Girshick, "Fast R-CNN", 2015


class Target(TypedDict):
    """The boxes of one frame."""

    boxes: Tensor  # (M, 4) xyxy pixels, M may be 0
    labels: Tensor  # (M,) int64, from 0


def dense_losses(
    outputs: Outputs,
    targets: Sequence[Target],
    *,
    box_loss: BoxLoss = "smooth_l1",
    alpha: float = 0.25,
    gamma: float = 1.5,
    foreground: float = 0.5,
    background: float = 0.5,
) -> dict[str, Tensor]:
    """`class`, `box`, and `centreness` where the network has it: of a one-stage detector against boxes.

    class: focal loss over all anchors and classes, except anchors whose overlap is from `background` to `foreground`;
    box: smooth L1 of the four offsets, or 1 − GIoU, of the anchors with a box. Each is divided by the number of those
    anchors, 1 at least. Without a box in the frame there is only `class`, of background.
    Lin et al. 2017 (arXiv 1708.02002); the defaults are EfficientDet's, whose smooth L1 turns linear at 0.1 instead.
    """
    import_torchvision()
    from torchvision.ops import sigmoid_focal_loss

    names = ["class", "box", "centreness"] if "centreness" in outputs else ["class", "box"]
    losses: dict[str, list[Tensor]] = {name: [] for name in names}
    for image, target in enumerate(targets):
        logits, regression, anchors = (outputs[n][image].float() for n in ("logits", "regression", "anchors"))
        if "centreness" in outputs:
            matched = match_points(anchors, target["boxes"])
        else:
            matched = match_anchors(anchors, target["boxes"], foreground=foreground, background=background)
        has_box = matched >= 0
        count = has_box.sum().clamp(min=1)
        wanted = torch.zeros_like(logits)
        wanted[has_box, target["labels"][matched[has_box]]] = 1
        counts = matched != BETWEEN
        focal = sigmoid_focal_loss(logits[counts], wanted[counts], alpha, gamma, reduction="sum")
        losses["class"].append(focal / count)
        boxes, at = target["boxes"].float()[matched[has_box]], anchors[has_box]
        losses["box"].append(_box_loss(regression[has_box], boxes, at, box_loss).sum() / count)
        if "centreness" in outputs:
            logit = outputs["centreness"][image, has_box, 0].float()
            wanted_centreness = _centreness(boxes, at)
            missed = F.binary_cross_entropy_with_logits(logit, wanted_centreness, reduction="sum")
            losses["centreness"].append(missed / count)
    return {name: torch.stack(values).mean() for name, values in losses.items()}


def _box_loss(regression: Tensor, boxes: Tensor, anchors: Tensor, kind: BoxLoss) -> Tensor:
    """(M,) of M anchors with a box."""
    if kind == "giou":
        from torchvision.ops import generalized_box_iou_loss

        return generalized_box_iou_loss(decode_boxes(regression, anchors), boxes)
    return F.smooth_l1_loss(regression, encode_boxes(boxes, anchors), beta=SMOOTH_L1_BETA, reduction="none").sum(dim=1)


def _centreness(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(M,) 1 at a box's centre, 0 at its sides: Tian et al. 2019 (arXiv 1904.01355), equation 3."""
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    near, far = points - boxes[:, :2], boxes[:, 2:] - points
    return (torch.minimum(near, far) / torch.maximum(near, far)).clamp(min=0).prod(dim=1).sqrt()


def proposal_losses(outputs: Outputs, targets: Sequence[Target], *, num_sampled: int = 256) -> dict[str, Tensor]:
    """`objectness` and `proposal_box` of the first stage against boxes, over anchors drawn from torch's generator.

    Up to half of the `num_sampled` anchors have a box (overlap from 0.7, or a box's best), the others none (below 0.3).
    Cross-entropy and smooth L1, divided by the number drawn. Ren et al. 2015, section 3.1.2.
    """
    losses: dict[str, list[Tensor]] = {"objectness": [], "proposal_box": []}
    for image, target in enumerate(targets):
        logits, regression = outputs["logits"][image, :, 0].float(), outputs["regression"][image].float()
        anchors, boxes = outputs["anchors"][image].float(), target["boxes"].float()
        matched = match_anchors(anchors, boxes, foreground=0.7, background=0.3)
        positive, drawn = _drawn(matched, num_sampled, share=0.5)
        objectness = F.binary_cross_entropy_with_logits(logits[drawn], (matched[drawn] >= 0).float(), reduction="sum")
        losses["objectness"].append(objectness / max(1, len(drawn)))
        off = _box_loss(regression[positive], boxes[matched[positive]], anchors[positive], "smooth_l1")
        losses["proposal_box"].append(off.sum() / max(1, len(drawn)))
    return {name: torch.stack(values).mean() for name, values in losses.items()}


def region_losses(
    regions: Outputs, proposals: Tensor, targets: Sequence[Target], *, num_sampled: int = 512
) -> dict[str, Tensor]:
    """`region_class` and `region_box` of the second stage against boxes, over regions drawn from torch's generator.

    regions: region_logits and region_regression for proposals (B, P, 4). Up to a quarter of the `num_sampled` regions
    have a box (overlap from 0.5). Cross-entropy and smooth L1 of their class's offsets, divided by the number drawn.
    Girshick 2015. torchvision adds the true boxes to the proposals: so may the caller, with the network's `regions`.
    """
    losses: dict[str, list[Tensor]] = {"region_class": [], "region_box": []}
    for image, target in enumerate(targets):
        logits, regression = regions["region_logits"][image].float(), regions["region_regression"][image].float()
        at, boxes, labels = proposals[image].float(), target["boxes"].float(), target["labels"]
        matched = match_anchors(at, boxes, foreground=0.5, background=0.5, best=False)
        matched = torch.where(is_proposal(at), matched, BETWEEN)
        positive, drawn = _drawn(matched, num_sampled, share=0.25)
        classes = torch.zeros_like(matched)
        classes[positive] = labels[matched[positive]] + 1
        missed = F.cross_entropy(logits[drawn], classes[drawn], reduction="sum")
        losses["region_class"].append(missed / max(1, len(drawn)))
        weights = logits.new_tensor(REGION_WEIGHTS)
        wanted = encode_boxes(boxes[matched[positive]], at[positive]) * weights
        off = regression[positive, labels[matched[positive]]] * weights
        losses["region_box"].append(
            F.smooth_l1_loss(off, wanted, beta=SMOOTH_L1_BETA, reduction="sum") / max(1, len(drawn))
        )
    return {name: torch.stack(values).mean() for name, values in losses.items()}


def with_true_boxes(proposals: Tensor, targets: Sequence[Target]) -> Tensor:
    """(B, P + M, 4) proposals with each frame's boxes behind them, filled up with empty ones to the most, M."""
    most = max(len(target["boxes"]) for target in targets)
    added = proposals.new_zeros((len(targets), most, 4))
    for image, target in enumerate(targets):
        added[image, : len(target["boxes"])] = target["boxes"]
    return torch.cat([proposals, added], dim=1)


def _drawn(matched: Tensor, count: int, *, share: float) -> tuple[Tensor, Tensor]:
    """Indices of the positives drawn, `share` of `count` at most, and of all drawn, these first."""
    positive, negative = (matched >= 0).nonzero()[:, 0], (matched == BACKGROUND).nonzero()[:, 0]
    positive = positive[torch.randperm(len(positive), device=matched.device)[: int(count * share)]]
    negative = negative[torch.randperm(len(negative), device=matched.device)[: count - len(positive)]]
    return positive, torch.cat([positive, negative])


def compare_dense(student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
    """`teacher_class` and `teacher_box`: dense outputs against a teacher's, without labels; 0 for equal ones. [ours]

    class: KL of each anchor's and class's probability from the teacher's, centreness alike; box: smooth L1 of the four
    offsets, weighted by the teacher's confidence, its largest probability at the anchor. Each is summed over the frame
    and divided by the sum of the confidences, 1 at least: what is seen counts, not the many anchors that see nothing.
    Errors: UserError where the two are not outputs of one kind of detector.
    """
    _require_alike(student, teacher)
    target = {name: teacher[name].detach().float() for name in ("logits", "regression")}
    confidence = target["logits"].sigmoid().amax(dim=2)
    total = confidence.sum(dim=1).clamp(min=1)
    gap = _bernoulli_gap(student["logits"].float(), target["logits"]).sum(dim=(1, 2))
    if "centreness" in teacher:
        centre = _bernoulli_gap(student["centreness"].float(), teacher["centreness"].detach().float())
        gap = gap + (centre[..., 0] * confidence).sum(dim=1)
    off = F.smooth_l1_loss(student["regression"].float(), target["regression"], beta=SMOOTH_L1_BETA, reduction="none")
    box = (off.sum(dim=2) * confidence).sum(dim=1)
    return {"teacher_class": (gap / total).mean(), "teacher_box": (box / total).mean()}


def _require_alike(student: Outputs, teacher: Outputs) -> None:
    """Errors: UserError where the outputs are of different anchors or classes, or of other kinds of detector."""
    for name in ("logits", "centreness", "region_logits"):
        shapes = [tuple(outputs[name].shape[1:]) if name in outputs else None for outputs in (student, teacher)]
        if name == "region_logits":  # proposals may be more or fewer
            shapes = [shape and shape[1:] for shape in shapes]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the student's {name} are {shapes[0] or 'none'} and the teacher's {shapes[1] or 'none'}: detectors of "
                "other anchors, classes or stages cannot be compared; take a teacher of the student's kind, or leave "
                "the teacher out and let `vidistill label` write its boxes"
            )
    if "anchors" in student and "anchors" in teacher and not torch.allclose(student["anchors"], teacher["anchors"]):
        raise UserError(
            "the student's anchors are not the teacher's, so their boxes cannot be compared; take a teacher of the "
            "student's kind, or leave the teacher out and let `vidistill label` write its boxes"
        )


def _bernoulli_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of independent probabilities, given as logits."""
    p = teacher.sigmoid()
    return p * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )


def compare_regions(student: Outputs, teacher: Outputs, proposals: Tensor) -> dict[str, Tensor]:
    """`teacher_region_class`, `teacher_region_box`: box head outputs on the same proposals, the teacher's. [ours]

    student, teacher: region_logits and region_regression for proposals (B, P, 4), the student's by its `regions`.
    class: KL of the class distributions, mean over a frame's proposals; box: smooth L1 of each class's offsets times
    the teacher's probability of that class, over the sum of those, 1 at least. Both 0 for equal outputs.
    """
    real = is_proposal(proposals)
    target = teacher["region_logits"].detach().float().log_softmax(dim=2)
    own = student["region_logits"].float().log_softmax(dim=2)
    gap = F.kl_div(own, target, reduction="none", log_target=True).sum(dim=2)
    per_frame = (gap * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    confidence = target.exp()[..., 1:] * real[..., None]
    wanted = teacher["region_regression"].detach().float()
    weights = wanted.new_tensor(REGION_WEIGHTS)
    off = F.smooth_l1_loss(
        student["region_regression"].float() * weights, wanted * weights, beta=SMOOTH_L1_BETA, reduction="none"
    ).sum(dim=3)
    box = (off * confidence).sum(dim=(1, 2)) / confidence.sum(dim=(1, 2)).clamp(min=1)
    return {"teacher_region_class": per_frame.mean(), "teacher_region_box": box.mean()}
