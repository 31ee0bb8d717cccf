"""Detectors behind our contract, against the libraries that they are of; and what a delta student makes of them."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models import build_network
from vidistill.models.anchor_detectors import AnchorDetector
from vidistill.models.detectors import Detector, detections, is_proposal
from vidistill.models.efficientdet import EfficientDet, efficientdet_d0
from vidistill.models.faster_rcnn import faster_rcnn_mobilenet_v3, faster_rcnn_resnet101
from vidistill.models.libraries import import_torchvision
from vidistill.models.region_detectors import FasterRCNN
from vidistill.ops.boxes import decode_boxes, overlaps
from vidistill.ops.macs import count_macs, on_meta
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.kinds import StudentSpec

SMALL = ["efficientdet_d0", "faster_rcnn_mobilenet_v3", "torchvision:ssdlite320_mobilenet_v3_large"]
# what of each has a student in the tests: some of it, for whole networks take seconds to plan
CONVERTED = [
    ("class_net*", "fpn.cell.0*"),
    ("proposal_head*", "backbone.fpn*"),
    ("backbone.extra*", "backbone.features.1*"),
]
ALL = [*SMALL, "torchvision:retinanet_resnet50_fpn", "torchvision:fcos_resnet50_fpn", "faster_rcnn_resnet50"]


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    """torchvision compiles its pooling where its own operators are missing, which takes a minute."""
    import_torchvision()
    with torch.compiler.set_stance("force_eager"):
        yield


def detector(name: str, *, num_classes: int = 3) -> Detector:
    torch.manual_seed(0)
    library, _, name = name.rpartition(":")
    options = {"num_classes": num_classes} | ({"num_proposals": 60} if "rcnn" in name else {})
    network = build_network(name, library or "vidistill", options)
    assert isinstance(network, Detector)
    return lively(network)


def lively(network: nn.Module) -> Any:
    """The network with normalisations and predictions as if trained: an untrained one's outputs are all alike."""
    for path, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        if isinstance(layer, nn.Conv2d) and ("predict" in path or "cls_logits" in path or "bbox" in path):
            nn.init.normal_(layer.weight, std=0.05)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 128, 128))
    return network.eval()


def test_published_cost() -> None:
    with torch.device("meta"):
        network = efficientdet_d0(num_classes=90).eval()
        frame = torch.empty(1, 3, 512, 512)
    # "2.5B FLOPs" at 512, table 2 of Tan et al. 2020; 2.50 in Habibian et al. 2022; ours leaves out all but layers
    assert count_macs(network, frame) / 1e9 == pytest.approx(2.50, rel=5e-3)


def test_cost_of_faster_rcnn_is_counted_without_values() -> None:
    with torch.device("meta"):
        network = faster_rcnn_resnet101(num_classes=30, num_proposals=100).eval()
        frame = torch.empty(1, 3, 256, 256)
    head = 100 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 31 * 5)
    levels = sum((256 // s) ** 2 for s in (4, 8, 16, 32, 64))
    proposals = levels * (256 * 256 * 9 + 256 * 15)
    backbone = count_macs(network.backbone, frame)
    assert count_macs(network, frame) == backbone + head + proposals


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_the_contract(name: str) -> None:
    network = detector(name)
    frames = torch.randn(2, 3, 97, 130)
    outputs = network(frames)
    num_anchors = outputs["anchors"].shape[1]
    assert all(len(tensor) == 2 for tensor in outputs.values())
    assert outputs["logits"].shape == (2, num_anchors, 1 if "proposals" in outputs else 3)
    assert outputs["regression"].shape == outputs["anchors"].shape == (2, num_anchors, 4)
    assert (outputs["anchors"][..., 2:] > outputs["anchors"][..., :2]).all()
    alone = network(frames[1:])
    for key in ("logits", "regression", "anchors"):
        torch.testing.assert_close(alone[key], outputs[key][1:], atol=1e-3, rtol=1e-3)
    if "proposals" in outputs:
        assert outputs["region_logits"].shape == (2, 60, 4)
        assert outputs["region_regression"].shape == (2, 60, 3, 4)
        real = is_proposal(outputs["proposals"])
        assert real.any()
        assert (outputs["proposals"][~real] == 0).all()
    for found in network.detect(outputs, (97, 130)):
        boxes, scores = found["boxes"], found["scores"]
        assert len(boxes) == len(scores) == len(found["labels"]) <= 100
        assert ((boxes >= 0) & (boxes <= torch.tensor([130, 97, 130, 97]))).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((found["labels"] >= 0) & (found["labels"] < 3)).all()
        shared = overlaps(boxes, boxes) * (found["labels"][:, None] == found["labels"])
        assert (shared.fill_diagonal_(0) <= 0.5).all()


@pytest.mark.parametrize("name", SMALL)
def test_shapes_come_without_values(name: str) -> None:
    library, _, short = name.rpartition(":")
    network = on_meta(build_network(short, library or "vidistill", {"num_classes": 2}).eval())
    outputs = network(torch.empty(1, 3, 128, 128, device="meta"))
    assert all(tensor.is_meta for tensor in outputs.values())


def test_efficientdet_is_effdets() -> None:
    import effdet
    from effdet.anchors import Anchors
    from effdet.bench import _post_process

    torch.manual_seed(0)
    config = effdet.get_efficientdet_config("efficientdet_d0")
    config.num_classes, config.image_size = 3, (128, 256)
    library = effdet.EfficientDet(config, pretrained_backbone=False)
    for path, layer in library.named_modules():
        if isinstance(layer, nn.Conv2d) and "predict" in path:
            nn.init.normal_(layer.weight, std=0.5)
    with torch.no_grad():
        library.train()(torch.randn(2, 3, 128, 256))
    library.eval()
    ours = efficientdet_d0(num_classes=3)  # built for another size
    ours.load_state_dict(library.state_dict())
    frames = torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        classes, boxes = library(frames)
        outputs = ours.eval()(frames)
    count = outputs["logits"].numel()
    logits, offsets, places, labels = _post_process(classes, boxes, 5, 3, max_detection_points=count)
    torch.testing.assert_close(outputs["logits"][0, places[0], labels[0]], logits[0, :, 0])
    torch.testing.assert_close(outputs["regression"][0, places[0]], offsets[0][:, [1, 0, 3, 2]])
    anchors = Anchors.from_config(config).boxes[:, [1, 0, 3, 2]]
    torch.testing.assert_close(outputs["anchors"][0], anchors)


def test_efficientdet_pads_at_the_right_and_bottom() -> None:
    network = detector("efficientdet_d0")
    frames = torch.randn(1, 3, 100, 120)
    padded = torch.zeros(1, 3, 128, 128)
    padded[..., :100, :120] = frames
    with torch.no_grad():
        torch.testing.assert_close(network(frames), network(padded))


def test_efficientdet_takes_another_backbone() -> None:
    with torch.device("meta"):
        network = efficientdet_d0(num_classes=2, backbone="tf_efficientnet_lite0")
    assert isinstance(network, EfficientDet)
    assert "backbone.blocks.0.0.se.conv_reduce.weight" not in network.state_dict()
    assert "backbone.conv_stem.weight" in network.state_dict()


def library_and_ours(name: str) -> tuple[Any, Any]:
    """torchvision's detector, and ours with its parts."""
    import torchvision

    torch.manual_seed(1)
    library = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=4)
    ours = lively((FasterRCNN if "fasterrcnn" in name else AnchorDetector)(library))  # the parts are shared
    return library.eval(), ours


def head_outputs(library: Any, frames: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What torchvision's own forward makes of normalised frames, and its anchors."""
    from torchvision.models.detection.image_list import ImageList

    features = list(library.backbone(frames).values())
    images = ImageList(frames, [(frames.shape[-2], frames.shape[-1])] * len(frames))
    return library.head(features), torch.stack(library.anchor_generator(images, features))


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
@torch.no_grad()
def test_scores_and_boxes_are_torchvisions(name: str) -> None:
    library, ours = library_and_ours(name)
    frames = torch.randn(2, 3, 96, 128)
    found, anchors = head_outputs(library, frames)
    outputs = ours(frames)
    torch.testing.assert_close(outputs["anchors"], anchors)
    boxes = decode_boxes(outputs["regression"], outputs["anchors"])
    for image in range(2):
        coder, regression = library.box_coder, found["bbox_regression"][image]
        decode = coder.decode if name.startswith("fcos") else coder.decode_single
        expected = decode(regression, anchors[image])
        wide = ((expected[:, 2:] - expected[:, :2]) > 0.1).all(dim=1)  # FCOS's may have no extent at all
        torch.testing.assert_close(boxes[image][wide], expected[wide], atol=1e-2, rtol=1e-4)
    scores = outputs["logits"].sigmoid()
    if name.startswith("ssd"):
        torch.testing.assert_close(scores, found["cls_logits"].softmax(dim=2)[..., 1:], atol=1e-5, rtol=1e-4)
        assert ours.num_classes == 3
    else:
        torch.testing.assert_close(scores, found["cls_logits"].sigmoid())
    if name.startswith("fcos"):
        torch.testing.assert_close(outputs["centreness"], found["bbox_ctrness"])


def padded(frames: Tensor, height: int, width: int) -> Tensor:
    whole = torch.zeros(*frames.shape[:2], height, width)
    whole[..., : frames.shape[2], : frames.shape[3]] = frames
    return whole


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
@torch.no_grad()
def test_frames_of_any_size_are_padded_as_torchvisions(name: str) -> None:
    library, ours = library_and_ours(name)
    frames = torch.randn(1, 3, 100, 250)
    library.transform.min_size, library.transform.max_size = (100,), 1000  # no resizing
    library.transform.image_mean, library.transform.image_std = [0.0] * 3, [1.0] * 3
    images, _ = library.transform([frames[0]])
    generator = library.rpn.anchor_generator if "rcnn" in name else library.anchor_generator
    levels = list(library.backbone(images.tensors).values())
    outputs = ours(frames)
    torch.testing.assert_close(outputs["anchors"][0], generator(images, levels)[0])
    logits = library.rpn.head(levels)[0] if "rcnn" in name else library.head(levels)["cls_logits"]
    assert torch.isfinite(outputs["regression"]).all()
    if "rcnn" in name:
        logits = torch.cat([level.permute(0, 2, 3, 1).reshape(1, -1, 1) for level in logits], dim=1)
    torch.testing.assert_close(outputs["logits"], logits)


@pytest.mark.parametrize("name", ["faster_rcnn_resnet50", "faster_rcnn_mobilenet_v3", "torchvision:fcos_resnet50_fpn"])
@pytest.mark.parametrize("size", [(97, 130), (100, 75), (33, 161)])
@torch.no_grad()
def test_anchors_stand_at_every_stride(name: str, size: tuple[int, int]) -> None:
    """Of levels whose stride divides the padded frame; torchvision's coarser ones are a little off."""
    strides = {"fcos": (8, 16, 32), "net": (32, 32), "rcnn": (4, 8, 16, 32)}
    per_cell = {"fcos": 1, "net": 15, "rcnn": 3}
    kind = "fcos" if "fcos" in name else "net" if "mobilenet" in name else "rcnn"
    anchors = detector(name)(torch.zeros(1, 3, *size))["anchors"][0]
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2)[:: per_cell[kind]]
    height, width = (-(-side // 32) * 32 for side in size)
    expected = [[x, y] for s in strides[kind] for y in range(0, height, s) for x in range(0, width, s)]
    torch.testing.assert_close(centres[: len(expected)], torch.tensor(expected, dtype=torch.float32))


@torch.no_grad()
def test_regions_of_padded_frames() -> None:
    network = detector("faster_rcnn_resnet50")
    frames = torch.randn(1, 3, 33, 75)
    outputs, whole = network(frames), network(padded(frames, 64, 96))
    boxes = torch.tensor([[[2.0, 3, 30, 31], [40, 1, 75, 33]]])
    found = network.regions(outputs, boxes, size=(33, 75))
    expected = network.regions(whole, boxes, size=(64, 96))
    torch.testing.assert_close(found["region_logits"], expected["region_logits"])


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_anchors_are_exact_in_bfloat16(name: str) -> None:
    network = detector(name)
    frames = torch.randn(1, 3, 128, 384)
    exact = network(frames)["anchors"]
    assert torch.equal(network.bfloat16()(frames.bfloat16())["anchors"], exact)


def plain_suppression(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    kept: list[int] = []
    rivals = ((overlaps(boxes, boxes) > threshold) & (groups[:, None] == groups)).tolist()
    for i in scores.argsort(descending=True).tolist():
        if not any(rivals[i][k] for k in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


@torch.no_grad()
def test_faster_rcnn_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import rpn
    from torchvision.models.detection.image_list import ImageList

    # torchvision's own suppression is compiled code that not every machine has
    monkeypatch.setattr(rpn.box_ops, "batched_nms", plain_suppression)
    library, ours = library_and_ours("fasterrcnn_mobilenet_v3_large_fpn")
    library.rpn._post_nms_top_n["testing"] = ours.num_proposals = 30
    frames = torch.randn(2, 3, 64, 96)
    features = library.backbone(frames)
    size = (64, 96)
    proposals, _ = library.rpn(ImageList(frames, [size] * 2), features)
    outputs = ours(frames)
    for image in range(2):
        count = len(proposals[image])
        assert is_proposal(outputs["proposals"][image]).sum() == count > 10
        torch.testing.assert_close(outputs["proposals"][image, :count], proposals[image], atol=1e-3, rtol=1e-4)
    heads = library.roi_heads
    logits, regression = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, [size] * 2)))
    real = is_proposal(outputs["proposals"])
    torch.testing.assert_close(outputs["region_logits"][real], logits, atol=1e-4, rtol=1e-4)
    boxes = heads.box_coder.decode(regression, proposals)[:, 1:]
    ours_decoded = decode_boxes(outputs["region_regression"], outputs["proposals"][:, :, None])[real]
    torch.testing.assert_close(ours_decoded, boxes, atol=1e-2, rtol=1e-4)


@torch.no_grad()
def test_the_box_head_judges_any_boxes() -> None:
    network = detector("faster_rcnn_mobilenet_v3")
    frames = torch.randn(1, 3, 64, 96)
    outputs = network(frames)
    again = network.regions(outputs, outputs["proposals"][:, 5:9], size=(64, 96))
    torch.testing.assert_close(again["region_logits"], outputs["region_logits"][:, 5:9], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again["region_regression"], outputs["region_regression"][:, 5:9], atol=1e-5, rtol=1e-5)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_detections_worked_by_hand() -> None:
    anchors = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 50, 40], [0, 0, 2, 2]]])
    probabilities = torch.tensor([[[0.6, 0.2], [0.9, 0.1], [0.04, 0.8], [0.01, 0.01]]])
    regression = torch.zeros(1, 4, 4)
    regression[0, 2] = torch.tensor([0.5, 0, math.log(2), 0])  # from 40±10 to 50±20
    outputs = {"logits": probabilities.logit(), "regression": regression, "anchors": anchors}
    [found] = detections(outputs, size=(36, 64))
    # class 0: the second suppresses the first (overlap 9/11); class 1 alike, the other way round
    assert found["labels"].tolist() == [0, 1, 1]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.8, 0.2])
    expected = [[1, 0, 11, 10], [30, 30, 64, 36], [0, 0, 10, 10]]
    torch.testing.assert_close(found["boxes"], torch.tensor(expected, dtype=torch.float32))
    [few] = detections(outputs, size=(36, 64), max_detections=1, score_threshold=0.5)
    assert few["labels"].tolist() == [0]
    outputs["centreness"] = torch.full((1, 4, 1), logit(0.4))
    [centred] = detections(outputs, size=(36, 64))
    assert float(centred["scores"][0]) == pytest.approx(math.sqrt(0.9 * 0.4))


def test_a_frame_without_detections() -> None:
    outputs = {
        "logits": torch.full((2, 3, 2), -9.0),
        "regression": torch.zeros(2, 3, 4),
        "anchors": torch.ones(2, 3, 4),
    }
    for found in detections(outputs, size=(8, 8)):
        assert found["boxes"].shape == (0, 4)
        assert len(found["scores"]) == len(found["labels"]) == 0


def test_regions_worked_by_hand() -> None:
    proposals = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]]])
    logits = torch.tensor([[[0.1, 0.7, 0.2], [0.9, 0.06, 0.04], [0.0, 0.5, 0.5]]]).clamp(min=1e-9).log()
    regression = torch.zeros(1, 3, 2, 4)
    regression[0, 0, 1, 0] = 0.5  # class 1 of the first moves by half its width
    outputs = {"proposals": proposals, "region_logits": logits, "region_regression": regression}
    [found] = detections(outputs, size=(40, 40))
    assert found["labels"].tolist() == [0, 1, 0]
    assert found["scores"].tolist() == pytest.approx([0.7, 0.2, 0.06])
    expected = [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]]
    torch.testing.assert_close(found["boxes"], torch.tensor(expected, dtype=torch.float32))


def test_other_detectors_of_torchvision() -> None:
    with pytest.raises(UserError, match="finds more than boxes"):
        build_network("maskrcnn_resnet50_fpn", "torchvision", {"num_classes": 3})
    with pytest.raises(UserError, match="cannot be built"):
        build_network("efficientdet_d0", options={"num_classes": 3, "backbone": "no_such_network"})


@pytest.mark.parametrize(("name", "convert"), zip(SMALL, CONVERTED, strict=True))
@torch.no_grad()
def test_delta_students(name: str, convert: tuple[str, ...]) -> None:
    """Heads shared over pyramid levels run several times a frame: each call has its own state."""
    network = detector(name)
    method = Delta(student=StudentSpec(reduction=16, policy="min"), convert=convert)
    student = method.prepare(network, torch.zeros(1, 3, 128, 128)).eval()
    reasons = {block.reason for block in student.plan.blocks if block not in student.plan.converted}
    assert reasons <= {
        "depthwise", "left by the network itself", "left by the recipe's patterns", "the student would cost as much",
    }  # fmt: skip
    assert "left by the network itself" in reasons
    assert student.plan.converted
    frames = torch.randn(2, 1, 3, 128, 128)
    key, state = student(frames[0])
    expected, still = network(frames[0]), student(frames[0], state)[0]
    assert all(torch.equal(key[n], expected[n]) and torch.equal(still[n], key[n]) for n in key)
    near = frames[0] + 0.1 * frames[1]
    unfolded, _ = student(near, state)
    student.folding = "later"
    _, state = student(frames[0])
    first, state = student(near, state)
    second, _ = student(near, state)
    for n in ("logits", "regression"):
        torch.testing.assert_close(first[n], unfolded[n], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(second[n], unfolded[n], atol=1e-5, rtol=1e-4)
    assert not torch.equal(second["logits"], key["logits"])


@pytest.mark.parametrize(("backbone", "first"), [(None, "conv_stem"), ("resnet18", "conv1")])
@torch.no_grad()
def test_efficientdets_first_convolution_is_left_whatever_its_backbone(backbone: str | None, first: str) -> None:
    network, selection = efficientdet_d0(num_classes=2, backbone=backbone), Selection("layer", ("backbone*",), (), 0, 0)
    spec = StudentSpec(reduction=16, policy="min")
    plan = plan_conversion(network, torch.zeros(1, 3, 128, 128), selection, [spec])
    [reason] = {block.reason for block in plan.blocks if f"backbone.{first}" in block.path}
    assert reason == "left by the network itself"
    assert plan.converted


@torch.no_grad()
def test_shared_heads_keep_a_state_a_level() -> None:
    network = efficientdet_d0(num_classes=2)
    student = Delta(
        student=StudentSpec(reduction=16, policy="min"), convert=("class_net*",), leave_first=0, leave_last=0
    ).prepare(network, torch.zeros(1, 3, 128, 128))
    _, state = student.eval()(torch.zeros(1, 3, 128, 128))
    slots = {name.rpartition("/")[0] for name in state}
    head = "key/class_net.conv_rep.0.conv_pw"
    assert {s for s in slots if s.startswith(head)} == {head, *(f"{head}#{level}" for level in range(1, 5))}


def test_proposals_fill_up_to_their_number() -> None:
    torch.manual_seed(0)
    network = faster_rcnn_mobilenet_v3(num_classes=1, num_proposals=600).eval()
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, 64, 64))
    assert outputs["proposals"].shape == (1, 600, 4)
    assert outputs["region_logits"].shape == (1, 600, 2)
