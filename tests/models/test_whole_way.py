"""Real networks go the whole way: conversion, training, saving, streaming, ONNX and back, by names in a recipe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from vidistill.data.datasets.synthetic import synthetic
from vidistill.methods.delta import Delta
from vidistill.models import MODELS, build_network
from vidistill.models.libraries import import_torchvision
from vidistill.models.outputs import logits_of
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.runs.train import train
from vidistill.runtimes import RUNTIMES
from vidistill.runtimes.eager import as_frames
from vidistill.stream.stream import Stream
from vidistill.students.delta.calls import tensors_of
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.files import load_student, save_student
from vidistill.students.norms import fused_copy

SIZE = (64, 80)
NETWORKS = [
    {"name": "ddrnet_23_slim"},
    {"library": "torchvision", "name": "lraspp_mobilenet_v3_large"},
    {"name": "deeplabv3_bottlenecks"},
    {"library": "segmentation_models_pytorch", "name": "unet", "options": {"encoder_name": "tu-test_resnet"}},
    {"library": "transformers", "name": "segformer"},
]


def deeplabv3_bottlenecks(num_classes: int) -> nn.Module:
    """torchvision's DeepLabV3, narrow, on three stages of one bottleneck, the last dilated; a network of one's own."""
    models = import_torchvision().models
    resnet, deeplab = models.resnet, models.segmentation.deeplabv3
    backbone = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, False])
    head = nn.Sequential(
        deeplab.ASPP(1024, [12, 24, 36], 64),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, num_classes, 1),
    )  # fmt: skip
    return deeplab.DeepLabV3(models._utils.IntermediateLayerGetter(backbone, {"layer3": "out"}), head)


@pytest.fixture(autouse=True)
def _own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "deeplabv3_bottlenecks", deeplabv3_bottlenecks)


LAYERS = {"student": {"policy": "min"}}
WHOLE = {"student": {"kind": "copy", "scale": 0.5}, "granularity": "network"}
METHODS = [LAYERS] * len(NETWORKS) + [WHOLE, WHOLE]
ids = [network["name"] for network in NETWORKS]


EXPORTED = ("ddrnet_23_slim", "segformer_whole")  # layer by layer, and whole; each takes seconds


@pytest.mark.parametrize(
    ("network", "method"),
    zip([*NETWORKS, NETWORKS[0], NETWORKS[4]], METHODS, strict=True),
    ids=[*ids, f"{ids[0]}_whole", f"{ids[4]}_whole"],
)
def test_the_whole_way(
    network: dict[str, Any], method: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = Recipe.model_validate(
        {
            "task": {"name": "segmentation", "num_classes": 4},
            "teacher": network,
            "student": {"from": "teacher"},
            "method": {"name": "delta", "key_frame_interval": 4, **method},
            "data": {"train": [{"name": "synthetic", "num_frames": 4, "size": SIZE}], "clip": {"max_gap": 2}},
            "optim": {"steps": 1, "batch_size": 2, "num_workers": 0},
            "out": str(tmp_path / "run"),
        }
    )
    run = build(recipe)
    print(run.training.student.plan)
    assert run.training.student.plan.share >= 0.8
    before = {k: v.clone() for k, v in run.training.student.state_dict().items()}
    student = run.training.method.finish(train(run.training))
    assert any(not torch.equal(v, before[k]) for k, v in student.state_dict().items())

    save_student(tmp_path / "student.safetensors", student)
    loaded = load_student(tmp_path / "student.safetensors")
    images = list(synthetic(num_sequences=1, num_frames=4, size=SIZE).sequences[0].images())
    labels = [output.prediction for output in Stream(load_student(tmp_path / "student.safetensors"))(images)]

    if request.node.callspec.id not in EXPORTED:
        return
    RUNTIMES["onnx"].export(loaded, tmp_path / "onnx", size=SIZE)
    sessions = {
        name: onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("key", "first_delta", "delta")
    }
    graphs = json.loads((tmp_path / "onnx" / "card.json").read_text())["graphs"]
    state, held = None, {}
    for index, (name, image) in enumerate(zip(("key", "first_delta", "delta", "delta"), images, strict=True)):
        pixels = torch.from_numpy(image)[None]
        with torch.no_grad():
            outputs, state = loaded(as_frames(loaded, pixels), state)
        given = {"frame": pixels.numpy(), **held}
        results = sessions[name].run(None, {key: given[key] for key in graphs[name]["inputs"]})
        found = dict(zip(graphs[name]["outputs"], results, strict=True))
        held = {key: found[f"next/{key}"] if f"next/{key}" in found else held[key] for key in graphs[name]["leaves"]}
        expected = tensors_of(outputs)[0]
        assert float((torch.from_numpy(found["output"]) - expected).abs().max() / expected.abs().max()) < 1e-4
        assert (run.task.decode(outputs, size=SIZE)[0].numpy() == labels[index]).mean() > 0.99


DETECTORS = {
    "ssdlite320_mobilenet_v3_large": ({}, ["backbone.features.0.*", "head.*"]),
    "fasterrcnn_mobilenet_v3_large_fpn": ({"num_proposals": 8}, ["backbone.fpn.*", "proposal_head.*"]),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_torchvisions_detectors_go_the_whole_way(name: str, tmp_path: Path) -> None:
    options, convert = DETECTORS[name]
    recipe = Recipe.model_validate(
        {
            "task": {"name": "detection", "num_classes": 4},
            "teacher": {"library": "torchvision", "name": name, "options": options},
            "student": {"from": "teacher"},
            "method": {"name": "delta", "student": {"policy": "min"}, "key_frame_interval": 4, "convert": convert},
            "data": {"train": [{"name": "synthetic", "num_frames": 4, "size": SIZE}], "clip": {"max_gap": 2}},
            "optim": {"steps": 1, "batch_size": 2, "num_workers": 0},
            "out": str(tmp_path / "run"),
        }
    )
    run = build(recipe)
    assert run.training.student.plan.converted
    student = run.training.method.finish(train(run.training))
    save_student(tmp_path / "student.safetensors", student)
    loaded = load_student(tmp_path / "student.safetensors")
    images = list(synthetic(num_sequences=1, num_frames=3, size=SIZE).sequences[0].images())
    streamed = [output.prediction for output in Stream(load_student(tmp_path / "student.safetensors"))(images)]
    state = None
    for image, boxes in zip(images, streamed, strict=True):
        frame = loaded.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None])
        with torch.no_grad():
            outputs, state = loaded(frame, state)
        found = run.task.decode(outputs, size=SIZE)[0]
        best, expected = (float(rows[:, 5].max()) if len(rows) else 0.0 for rows in (found, boxes))
        assert best == pytest.approx(expected, abs=1e-3)
    if name == "ssdlite320_mobilenet_v3_large":  # each takes seconds
        assert RUNTIMES["onnx"].export(loaded, tmp_path / "onnx", size=SIZE).gap < 1e-4


@pytest.mark.parametrize("settings", NETWORKS, ids=ids)
@torch.no_grad()
def test_still_folded_and_full_rank(settings: dict[str, Any]) -> None:
    options = {"num_classes": 4} | settings.get("options", {})
    network = build_network(settings["name"], settings.get("library", "vidistill"), options).eval()
    first, second = torch.randn(1, 3, *SIZE), torch.randn(1, 3, *SIZE)

    def gap(found, expected) -> float:
        return float((logits_of(found) - logits_of(expected)).abs().max() / logits_of(expected).abs().max())

    student = Delta(student=StudentSpec(policy="min")).prepare(network, first).eval()
    outputs, state = student(first)
    assert np.array_equal(logits_of(outputs), logits_of(network(first)))
    assert np.array_equal(logits_of(student(first, state)[0]), logits_of(outputs))
    expected = student(second, state)[0]
    student.folding = "later"
    assert gap(student(second, state)[0], expected) < 1e-5
    fused = fused_copy(student, first)
    assert gap(fused(second, fused(first)[1])[0], expected) < 1e-5
    full = Delta(student=StudentSpec(rank=10**6)).prepare(network, first).eval()
    assert gap(full(second, full(first)[1])[0], network(second)) < 1e-5
