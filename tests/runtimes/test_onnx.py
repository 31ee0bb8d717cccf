from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vidistill.data.datasets.synthetic import synthetic
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.boxes import suppress
from vidistill.runtimes import RUNTIMES, deploy, onnx, open_student
from vidistill.runtimes.onnx import ExportedStudent
from vidistill.stream import Running, Stream
from vidistill.students.card import Card
from vidistill.students.student import PerFrame, Student
from vidistill.tasks.segmentation import Segmentation

EXPORT = RUNTIMES["onnx"].export
CARD = Card(task=Segmentation(num_classes=4), class_names=("a", "b", "c", "d"), key_frame_interval=3)


def delta_student(network: torch.nn.Module, size: tuple[int, int]) -> Student:
    method = Delta()
    return method.finish(method.prepare(network, torch.zeros(1, 3, *size), card=CARD))


@pytest.mark.parametrize("size", [(32, 48), (21, 35)])
@torch.no_grad()
def test_key_and_three_delta_frames_in_onnx_runtime(network, tmp_path: Path, size) -> None:
    """The files alone, driven as a user would: state goes in and out by name."""
    student = delta_student(network, size)
    exported = EXPORT(student, tmp_path, size=size)
    assert exported.files == tuple(tmp_path / name for name in ("key.onnx", "delta.onnx", "card.json"))
    assert 0 <= exported.gap < onnx.PARITY
    key = onnxruntime.InferenceSession(tmp_path / "key.onnx", providers=["CPUExecutionProvider"])
    delta = onnxruntime.InferenceSession(tmp_path / "delta.onnx", providers=["CPUExecutionProvider"])
    frames = torch.randn(4, 1, 3, *size)
    names = [output.name for output in key.get_outputs()]
    outputs = dict(zip(names, key.run(None, {"frame": frames[0].numpy()}), strict=True))
    expected, state = student(frames[0])
    np.testing.assert_allclose(outputs["output"], expected.numpy(), atol=1e-5)
    assert sorted(names) == ["key/body.0/offset", "key/mix/offset", "output"]
    held = {name: value for name, value in outputs.items() if name != "output"}
    for frame in frames[1:]:
        expected, state = student(frame, state)
        (output,) = delta.run(None, {"frame": frame.numpy(), **held})
        np.testing.assert_allclose(output, expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_an_exported_student_runs_as_the_student(network, tmp_path: Path) -> None:
    student = delta_student(network, (32, 48))
    EXPORT(student, tmp_path, size=(32, 48))
    opened, state, held = open_student(tmp_path), None, None
    assert isinstance(opened, ExportedStudent)
    assert opened.card == student.card
    assert (opened.runtime, opened.has_key_frames) == ("onnx", True)
    for frame in torch.randn(3, 1, 3, 32, 48):
        expected, state = student(frame, state)
        output, held = opened(frame, held)
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    (tmp_path / "key.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"key\.onnx: is not a network in ONNX"):
        open_student(tmp_path)


def test_what_was_exported_streams_as_what_was_not(network, tmp_path: Path) -> None:
    student = delta_student(network, (32, 48))
    EXPORT(student, tmp_path, size=(32, 48))
    images = list(synthetic(num_sequences=1, num_frames=5, size=(32, 48)).sequences[0].images())
    expected = list(Stream(student)(images))
    for stream in (Stream(open_student(tmp_path)), Stream(student, running=Running(runtime="onnx"))):
        outputs = list(stream(images))
        assert [output.is_key_frame for output in outputs] == [True, False, False, True, False]
        same = [np.mean(a.prediction == b.prediction) for a, b in zip(outputs, expected, strict=True)]
        assert min(same) > 0.999


def test_an_exported_folder_that_is_not_whole(network, tmp_path: Path) -> None:
    EXPORT(PerFrame(network, CARD).eval(), tmp_path, size=(16, 24))
    (tmp_path / "card.json").write_text('{"runtime": "onx"}')
    with pytest.raises(UserError, match=r"card\.json: runtime: unknown name 'onx'; did you mean onnx"):
        open_student(tmp_path)
    (tmp_path / "card.json").write_text('{"runtime": "onnx"}')
    with pytest.raises(UserError, match=r"card\.json: is not the card of an exported student .*; export it again"):
        open_student(tmp_path)
    (tmp_path / "card.json").write_text("no card")
    with pytest.raises(
        UserError, match=r"card\.json: is not the card of an exported student \(Invalid JSON: .*; export it again"
    ):
        open_student(tmp_path)


def test_an_exported_student_runs_as_it_was_exported(network, tmp_path: Path) -> None:
    EXPORT(PerFrame(network, CARD).eval(), tmp_path, size=(16, 24))
    opened, frame = open_student(tmp_path), torch.zeros(1, 3, 16, 24)
    assert deploy(opened, frame) is opened
    assert deploy(opened, frame, runtime="onnx") is opened
    with pytest.raises(UserError, match="was exported for runtime onnx in float32, got runtime eager"):
        deploy(opened, frame, runtime="eager")
    with pytest.raises(UserError, match="takes frames of 24x16, got 48x32; export it again with --size 48x32"):
        opened(torch.zeros(1, 3, 32, 48))


def test_a_network_without_state_is_one_graph(network, tmp_path: Path) -> None:
    exported = EXPORT(PerFrame(network).eval(), tmp_path, size=(16, 24))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "key.onnx"]
    assert sorted(exported.files) == sorted(tmp_path.iterdir())
    assert not open_student(tmp_path).has_key_frames


def test_outputs_that_differ_are_not_written(network, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx, "PARITY", 0.0)
    with pytest.raises(UserError, match="differ from torch's"):
        EXPORT(PerFrame(network).eval(), tmp_path, size=(16, 24))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_our_suppression_in_onnx_runtime(tmp_path: Path, seed: int) -> None:
    """The operator that networks with proposals hold, on crowded boxes, some of them empty."""

    class Suppression(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
            return suppress(boxes, scores, groups, 0.5, 12)

    torch.manual_seed(seed)
    corner = 10 * torch.rand(1, 30, 2)
    boxes = torch.cat([corner, corner + (8 * torch.rand(1, 30, 2) - 1).clamp(min=0)], dim=2)
    inputs = boxes, torch.randn(1, 30), torch.randint(0, 2 if seed % 2 else 1, (1, 30))
    onnx._export(Suppression(), inputs, {}, tmp_path / "a.onnx", ["boxes", "scores", "groups"], ["kept"])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    given = dict(zip(["boxes", "scores", "groups"], (tensor.numpy() for tensor in inputs), strict=True))
    (kept,) = session.run(None, {name: given[name] for name in names})
    assert kept.tolist() == suppress(*inputs, 0.5, 12).tolist()
