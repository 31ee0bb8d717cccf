import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vidistill.students.delta.kinds.separable import bottleneck_rank, full_rank, separable, start_from


def dense_kernel(student: nn.Sequential) -> torch.Tensor:
    """The k×k kernel that the two convolutions make together, by an explicit sum over the bottleneck."""
    first, second = student[0].weight, student[1].weight  # (r, c, h, 1), (n, r, 1, w)
    kernel = torch.zeros(second.shape[0], first.shape[1], first.shape[2], second.shape[3], dtype=first.dtype)
    for r in range(first.shape[0]):
        for n in range(second.shape[0]):
            for c in range(first.shape[1]):
                kernel[n, c] += first[r, c, :, 0][:, None] * second[n, r, 0, :][None]
    return kernel


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(11, 15), st.integers(11, 15)),
    mode=st.sampled_from(["zeros", "replicate", "reflect", "circular"]),
)
def test_separable_is_the_dense_convolution_of_its_kernel(kernel, stride, dilation, padding, size, mode) -> None:
    layer = nn.Conv2d(3, 4, kernel, stride=stride, dilation=dilation, padding=padding, padding_mode=mode).double()
    student = separable(layer, 2).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    border = (padding[1], padding[1], padding[0], padding[0])
    padded = F.pad(x, border, mode="constant" if mode == "zeros" else mode)
    expected = F.conv2d(padded, dense_kernel(student), stride=stride, dilation=dilation)
    torch.testing.assert_close(student(x), expected)
    assert all(part.bias is None for part in student)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_named_paddings(padding: str) -> None:
    layer = nn.Conv2d(3, 4, 3, padding=padding)
    student = separable(layer, full_rank(layer))
    start_from(student, layer)
    x = torch.randn(1, 3, 9, 10)
    torch.testing.assert_close(student(x), F.conv2d(x, layer.weight, padding=padding), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 5, (3, 2)), nn.Conv2d(7, 5, 1), nn.Linear(6, 9)], ids=str)
def test_full_rank_reproduces_the_layer_and_no_rank_less_does(layer) -> None:
    layer = layer.double()
    x = torch.randn(2, 6, dtype=torch.float64) if isinstance(layer, nn.Linear) else None
    x = torch.randn(2, layer.in_channels, 8, 8, dtype=torch.float64) if x is None else x
    plain = layer(x) - (layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None])
    gaps = []
    for rank in (full_rank(layer), full_rank(layer) - 1):
        student = separable(layer, rank).double()
        start_from(student, layer)
        gaps.append(float((student(x) - plain).abs().max()))
    assert gaps[0] < 1e-12 < 1e-3 < gaps[1]


def test_start_is_the_best_approximation_of_its_rank() -> None:
    """Eckart and Young: the squared error is the sum of the singular values left out, squared."""
    layer = nn.Conv2d(5, 6, 3).double()
    matrix = layer.weight.permute(1, 2, 0, 3).reshape(15, 18)
    values = torch.linalg.svdvals(matrix)
    student = separable(layer, 4).double()
    start_from(student, layer)
    error = (dense_kernel(student) - layer.weight).square().sum()
    torch.testing.assert_close(error, values[4:].square().sum())
    # √S to both sides: the two kernels are equally large
    torch.testing.assert_close(student[0].weight.square().sum(), student[1].weight.square().sum())


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "policy", "expected"),
    [
        (32, 64, "out", 16),
        (64, 4, "out", 0),
        (64, 5, "out", 1),
        (8, 64, "min", 2),
        (3, 64, "min", 0),
        (64, 7, "min", 1),
    ],
)
def test_rank_by_hand(in_channels: int, out_channels: int, policy, expected: int) -> None:
    assert bottleneck_rank(nn.Conv2d(in_channels, out_channels, 3), reduction=4, policy=policy) == expected


def test_grouped_layers_start_by_holding() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    student = separable(layer, 4)
    start_from(student, layer)
    assert student[0].groups == 2
    assert student(torch.randn(1, 8, 5, 5)).abs().max() == 0
