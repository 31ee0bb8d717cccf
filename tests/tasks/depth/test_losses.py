"""Depth's losses against slow plain formulas, and values by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.libraries import import_torchvision
from vidistill.tasks.depth.task import EPSILON, Depth, log_depth_of, scale_invariant_gap

E = EPSILON


def slow_gap(ours: np.ndarray, theirs: np.ndarray, is_known: np.ndarray, invariance: float) -> float:
    """√(D + ε²) − ε with Eigen et al.'s D in its pairwise form, their equation 4, weighted by λ."""
    gaps = [o - t for o, t, known in zip(ours.flat, theirs.flat, is_known.flat, strict=True) if known]
    n = len(gaps)
    squares = sum(g * g for g in gaps) / n
    pairs = sum(a * b for a in gaps for b in gaps) / n**2
    return math.sqrt(squares - invariance * pairs + E**2) - E


@pytest.mark.parametrize("invariance", [0.0, 0.5, 0.85, 1.0])
def test_gap_against_the_plain_formula(invariance: float) -> None:
    ours, theirs = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    is_known = torch.rand(3, 4, 5) < 0.6
    gaps = scale_invariant_gap(ours, theirs, is_known, invariance)
    for gap, o, t, known in zip(gaps, ours, theirs, is_known, strict=True):
        assert gap.item() == pytest.approx(slow_gap(o.numpy(), t.numpy(), known.numpy(), invariance), abs=1e-9)


def test_gap_by_hand() -> None:
    # 2 m and 8 m, predicted twice too far and right: gaps log 2 and 0
    outputs = torch.tensor([[[[4.0, 8.0]]]]).log()
    labels = torch.tensor([[[2.0, 8.0]]])
    squared = math.log(2) ** 2 / 2 - 0.5 * (math.log(2) / 2) ** 2
    loss = Depth(scale_invariance=0.5).supervise(outputs, labels)["task"]
    assert loss.item() == pytest.approx(math.sqrt(squared + E**2) - E, abs=1e-6)


def test_an_error_of_scale_alone_is_forgiven_as_far_as_asked() -> None:
    labels = torch.rand(1, 4, 5) * 20 + 1
    outputs = (3 * labels).log()[:, None]
    assert Depth(scale_invariance=1).supervise(outputs, labels)["task"].item() == pytest.approx(0, abs=1e-5)
    loss = Depth(scale_invariance=0).supervise(outputs, labels)["task"]
    assert loss.item() == pytest.approx(math.log(3) - E, abs=1e-5)


def test_unknown_and_too_far_pixels_do_not_count() -> None:
    outputs = torch.randn(1, 1, 2, 3)
    labels = torch.tensor([[[1.0, 2.0, 0.0], [4.0, 81.0, 300.0]]])
    others = outputs.clone()
    others[0, 0, 0, 2] = others[0, 0, 1, 1] = others[0, 0, 1, 2] = 50.0
    task = Depth()
    assert task.supervise(others, labels)["task"] == task.supervise(outputs, labels)["task"]
    assert Depth(max_depth=100).supervise(others, labels)["task"] > 1


def test_a_batch_is_the_mean_of_its_frames() -> None:
    outputs, labels = torch.randn(3, 1, 4, 5), torch.rand(3, 4, 5) * 20 + 1
    labels[0, :3], labels[2] = 0, 0
    task = Depth()
    alone = [task.supervise(outputs[i : i + 1], labels[i : i + 1])["task"] for i in range(3)]
    assert alone[2] == 0
    torch.testing.assert_close(task.supervise(outputs, labels)["task"], torch.stack(alone).mean())


@pytest.mark.parametrize("offset", [0.0, 1e-6])
def test_gradients_are_finite_where_outputs_are_equal(offset: float) -> None:
    outputs = torch.randn(2, 1, 3, 4, requires_grad=True)
    Depth().compare(outputs, outputs.detach() + offset)["teacher"].backward()
    assert torch.isfinite(outputs.grad).all()


def test_the_teacher_is_compared_at_its_own_size() -> None:
    student, teacher = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 6, 8, requires_grad=True)
    loss = Depth().compare(student, teacher)["teacher"]
    larger = F.interpolate(student, size=(6, 8), mode="bilinear", align_corners=False)
    expected = scale_invariant_gap(larger[:, 0], teacher[:, 0], torch.ones(2, 6, 8, dtype=torch.bool), 0.85).mean()
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad


def test_outputs_of_every_kind() -> None:
    log_depth = torch.randn(2, 1, 3, 4)
    metres = log_depth.exp()[:, 0]  # as Transformers' networks give them
    for outputs in (log_depth, log_depth[:, 0], {"out": log_depth}, {"logits": log_depth}):
        torch.testing.assert_close(log_depth_of(outputs), log_depth)
    for outputs in ({"predicted_depth": metres}, SimpleNamespace(predicted_depth=metres)):
        torch.testing.assert_close(log_depth_of(outputs), log_depth)
    with pytest.raises(UserError, match=r"one channel, .* got \(2, 4, 3, 3\); build it with num_classes: 1"):
        log_depth_of(torch.zeros(2, 4, 3, 3))
    torch.testing.assert_close(log_depth_of([log_depth]), log_depth)


def test_a_network_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    import_torchvision()  # which Transformers would import without its workaround
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = transformers.GLPNConfig(**sizes, decoder_hidden_size=8)
    network = transformers.GLPNForDepthEstimation(config)
    outputs = network(torch.randn(2, 3, 64, 64))
    Depth().supervise(outputs, torch.rand(2, 64, 64) * 20)["task"].backward()
    assert sum(p.grad.abs().sum() for p in network.parameters() if p.grad is not None) > 0
    assert Depth().decode(outputs, size=(70, 90)).shape == (2, 70, 90)


def test_decoding_gives_metres_within_the_range() -> None:
    outputs = torch.tensor([[[[-50.0, math.log(2), math.log(3), 50.0]]]], dtype=torch.bfloat16)
    metres = Depth(max_depth=10).decode(outputs, size=(1, 4))
    assert metres.dtype == torch.float32
    assert metres[0, 0].tolist() == pytest.approx([1e-3, 2, 3, 10], rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": 0}, "max_depth must be at least 1e-06, got 0"),
        ({"max_depth": 300}, "got 300"),
        ({"scale_invariance": -0.1}, "scale_invariance must be at least 0, got -0.1"),
        ({"scale_invariance": 1.5}, "got 1.5"),
    ],
)
def test_settings_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Depth(**options)
