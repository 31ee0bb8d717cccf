"""Deformable convolution against ONNX's reference of its DeformConv, and where it is an ordinary convolution."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidistill.models.libraries import import_torchvision
from vidistill.ops.deformable import deformable_convolution


def test_it_is_onnx_deform_conv() -> None:
    """Offsets far enough to leave the frame, two groups."""
    helper = pytest.importorskip("onnx.helper")
    reference = pytest.importorskip("onnx.reference")
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=(2, 4, 5, 6)),
        "w": rng.normal(size=(3, 4, 3, 3)),
        "o": 3 * rng.normal(size=(2, 36, 5, 6)),
        "b": rng.normal(size=3),
        "m": rng.uniform(size=(2, 18, 5, 6)),
    }
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    node = helper.make_node("DeformConv", list(inputs), ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], offset_group=2)
    values = [helper.make_tensor_value_info(name, 1, value.shape) for name, value in inputs.items()]
    graph = helper.make_graph([node], "deform", values, [helper.make_tensor_value_info("y", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    expected = reference.ReferenceEvaluator(model).run(None, inputs)[0]
    x, weight, offsets, bias, mask = (torch.from_numpy(value) for value in inputs.values())
    ours = deformable_convolution(x, offsets, mask, weight, bias)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_without_offsets_it_is_a_convolution() -> None:
    x, weight, bias = torch.rand(2, 4, 5, 7), torch.rand(6, 4, 3, 3), torch.rand(6)
    still, full = torch.zeros(2, 36, 5, 7), torch.ones(2, 18, 5, 7)
    ours = deformable_convolution(x, still, full, weight, bias)
    torch.testing.assert_close(ours, F.conv2d(x, weight, bias, padding=1), atol=1e-5, rtol=1e-5)


def test_whole_offsets_shift_the_frame() -> None:
    x, weight = torch.rand(1, 2, 6, 6), torch.rand(2, 2, 3, 3)
    offsets = torch.zeros(1, 9, 2, 6, 6)
    offsets[:, :, 0], offsets[:, :, 1] = 1, -2  # one down, two to the left
    shifted = F.pad(x, (2, 0, 0, 1))[..., 1:, :-2]
    ours = deformable_convolution(x, offsets.flatten(1, 2), torch.full((1, 9, 6, 6), 0.5), weight, torch.zeros(2))
    expected = F.conv2d(shifted, weight, padding=1) / 2
    torch.testing.assert_close(ours[..., 1:-2, 3:-1], expected[..., 1:-2, 3:-1], atol=1e-5, rtol=1e-5)


def test_places_are_exact_under_autocast() -> None:
    """In bfloat16 the columns of a wide frame are more than a pixel apart. The weights pass the middle tap on."""
    x, weight = torch.rand(1, 2, 3, 700), torch.zeros(2, 2, 3, 3)
    weight[0, 0, 1, 1] = weight[1, 1, 1, 1] = 1
    offsets = torch.zeros(1, 9, 2, 3, 700)
    offsets[:, :, 1] = 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = deformable_convolution(
            x, offsets.flatten(1, 2).bfloat16(), torch.ones(1, 9, 3, 700).bfloat16(), weight, torch.zeros(2)
        )
    torch.testing.assert_close(moved[..., :-2].float(), x[..., 2:], atol=5e-3, rtol=0)


def test_it_is_torchvisions() -> None:
    ops = import_torchvision().ops
    if not hasattr(torch.ops.torchvision, "deform_conv2d"):  # the wheel was built for another torch
        pytest.skip("torchvision's own operators do not load here")
    x, weight, bias = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 3), torch.randn(3)
    offsets, mask = 3 * torch.randn(2, 36, 5, 6), torch.rand(2, 18, 5, 6)
    theirs = ops.deform_conv2d(x, offsets, weight, bias, padding=1, mask=mask)
    torch.testing.assert_close(deformable_convolution(x, offsets, mask, weight, bias), theirs, atol=1e-4, rtol=1e-4)
