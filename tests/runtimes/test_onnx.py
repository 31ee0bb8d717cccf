from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.boxes import suppress
from vidistill.runtimes import onnx as export
from vidistill.runtimes.onnx import OnnxStudent, export_onnx
from vidistill.students.student import PerFrame


@pytest.mark.parametrize("size", [(32, 48), (21, 35)])
@torch.no_grad()
def test_key_and_three_delta_frames_in_onnx_runtime(network, tmp_path: Path, size) -> None:
    """The files alone, driven as a user would: state goes in and out by name."""
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, *size)))
    exported = export_onnx(student, tmp_path, size=size)
    key = onnxruntime.InferenceSession(exported.key, providers=["CPUExecutionProvider"])
    delta = onnxruntime.InferenceSession(exported.delta, providers=["CPUExecutionProvider"])
    frames = torch.randn(4, 1, 3, *size)
    names = [output.name for output in key.get_outputs()]
    found = dict(zip(names, key.run(None, {"frame": frames[0].numpy()}), strict=True))
    expected, state = student(frames[0])
    np.testing.assert_allclose(found["output"], expected.numpy(), atol=1e-5)
    assert sorted(names) == ["key/body.0/offset", "key/mix/offset", "output"]
    held = {name: value for name, value in found.items() if name != "output"}
    for frame in frames[1:]:
        expected, state = student(frame, state)
        (output,) = delta.run(None, {"frame": frame.numpy(), **held})
        np.testing.assert_allclose(output, expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_an_exported_student_runs_as_the_student(network, tmp_path: Path) -> None:
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 32, 48)))
    exported = export_onnx(student, tmp_path, size=(32, 48))
    session, state, held = OnnxStudent(exported.key, exported.delta), None, None
    for frame in torch.randn(3, 1, 3, 32, 48):
        expected, state = student(frame, state)
        (output,), held = session(frame, held)
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    (tmp_path / "key.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"key\.onnx: is not a network in ONNX"):
        OnnxStudent(tmp_path / "key.onnx", None)


def test_a_network_without_state_is_one_graph(network, tmp_path: Path) -> None:
    exported = export_onnx(PerFrame(network).eval(), tmp_path, size=(16, 24))
    assert exported.delta is None
    assert [path.name for path in tmp_path.iterdir()] == ["key.onnx"]


def test_outputs_that_differ_are_not_written(network, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export, "PARITY", 0.0)
    with pytest.raises(UserError, match="differ from torch's"):
        export_onnx(PerFrame(network).eval(), tmp_path, size=(16, 24))
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
    export._export(Suppression(), inputs, {}, tmp_path / "a.onnx", ["boxes", "scores", "groups"], ["kept"])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    given = dict(zip(["boxes", "scores", "groups"], (tensor.numpy() for tensor in inputs), strict=True))
    (found,) = session.run(None, {name: given[name] for name in names})
    assert found.tolist() == suppress(*inputs, 0.5, 12).tolist()
