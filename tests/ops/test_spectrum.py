"""Spectra against numpy's transforms, plain sums and values worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vidistill.ops.spectrum import (
    cosine_basis,
    distribution_gap,
    frequency_distribution,
    num_frequencies,
    spectrum_gap,
    temporal_spectrum,
)

FRAMES, SEEDS = st.integers(1, 9), st.integers(0, 2**31)
TRANSFORMS, KINDS = ["fft", "dct"], ["amplitude", "log", "power", "complex"]


def pair(seed: int, num_frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, num_frames, 3, 2, 2)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def plain_dct(values: np.ndarray) -> np.ndarray:
    """The orthonormal DCT-II along the first axis, by its definition."""
    length = len(values)
    found = np.zeros_like(values, dtype=np.float64)
    for k in range(length):
        scale = math.sqrt((1 if k == 0 else 2) / length)
        for t in range(length):
            found[k] += scale * math.cos(math.pi * (2 * t + 1) * k / (2 * length)) * values[t]
    return found


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(num_frames=FRAMES, seed=SEEDS)
def test_the_complex_gap_is_the_features_mean_squared_error(transform, num_frames: int, seed: int) -> None:
    student, teacher = pair(seed, num_frames)
    student.requires_grad_()
    gap = spectrum_gap(student, teacher, transform=transform, kind="complex", normalised=False)
    plain = F.mse_loss(student, teacher)
    torch.testing.assert_close(gap, plain, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (gap, plain)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@given(num_frames=FRAMES, seed=SEEDS)
def test_the_complex_gap_is_that_of_numpys_full_transform(num_frames: int, seed: int) -> None:
    student, teacher = pair(seed, num_frames)
    full = [np.fft.fft(f.numpy().astype(np.float64), axis=1, norm="ortho") for f in (student, teacher)]
    gap = spectrum_gap(student, teacher, kind="complex", normalised=False)
    assert gap.item() == pytest.approx((np.abs(full[0] - full[1]) ** 2).mean(), rel=1e-5)
    amplitudes = [np.abs(f) / np.sqrt((np.abs(f) ** 2).sum(axis=(1, 2, 3, 4), keepdims=True)) for f in full]
    expected = ((amplitudes[0] - amplitudes[1]) ** 2).sum() / len(student)
    assert spectrum_gap(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(num_frames=FRAMES, seed=SEEDS)
def test_the_cosine_transform_by_its_definition(num_frames: int, seed: int) -> None:
    features, _ = pair(seed, num_frames)
    expected = plain_dct(features[0].double().numpy())
    np.testing.assert_allclose(
        temporal_spectrum(features, transform="dct", kind="complex")[0, ..., 0], expected, atol=1e-5
    )
    np.testing.assert_allclose(
        temporal_spectrum(features, transform="dct")[0], np.abs(expected), atol=1e-5
    )  # a real transform's amplitude
    basis = cosine_basis(num_frames)
    torch.testing.assert_close(basis @ basis.T, torch.eye(num_frames), atol=1e-5, rtol=0)


def test_kinds_by_hand() -> None:
    features = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1, 1)  # mean and difference over √2: 4 / √2 and 2 / √2
    expected = [4 / math.sqrt(2), 2 / math.sqrt(2)]
    assert temporal_spectrum(features).flatten().tolist() == pytest.approx(expected)
    assert temporal_spectrum(features, kind="power").flatten().tolist() == pytest.approx([8, 2])
    logs = [math.log(1 + value) for value in expected]
    assert temporal_spectrum(features, kind="log").flatten().tolist() == pytest.approx(logs)
    found = temporal_spectrum(features, kind="complex").flatten().tolist()
    assert found == pytest.approx([expected[0], 0, expected[1], 0])


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(num_frames=FRAMES, seed=SEEDS)
def test_the_spectrum_has_the_features_norm_and_its_frequencies(transform, num_frames: int, seed: int) -> None:
    features, _ = pair(seed, num_frames)
    spectrum = temporal_spectrum(features, transform=transform)
    assert spectrum.shape == (2, num_frequencies(num_frames, transform), 3, 2, 2)
    assert spectrum.norm().item() == pytest.approx(features.norm().item(), rel=1e-5)


@given(num_frames=FRAMES, seed=SEEDS, shift=st.integers(0, 9))
def test_amplitudes_are_blind_to_a_circular_shift_in_time(num_frames: int, seed: int, shift: int) -> None:
    features, _ = pair(seed, num_frames)
    moved = features.roll(shift, dims=1)
    for kind in ("amplitude", "log", "power"):
        assert spectrum_gap(moved, features, kind=kind).item() == pytest.approx(0, abs=1e-9)
    if shift % num_frames:
        assert spectrum_gap(moved, features, kind="complex").item() > 1e-3


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(num_frames=FRAMES, seed=SEEDS, scale=st.floats(0.01, 100))
def test_the_normalised_gap_is_within_2_and_blind_to_scale(transform, num_frames: int, seed: int, scale: float) -> None:
    student, teacher = pair(seed, num_frames)
    gap = spectrum_gap(student, teacher, transform=transform).item()
    assert 0 <= gap <= 2
    assert spectrum_gap(student * scale, teacher, transform=transform).item() == pytest.approx(gap, rel=1e-3, abs=1e-6)
    assert spectrum_gap(teacher * scale, teacher, transform=transform).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
@given(num_frames=st.integers(2, 9), seed=SEEDS)
def test_still_clips_have_no_motion_to_tell_apart(transform, kind, num_frames: int, seed: int) -> None:
    student, teacher = (f[:, :1].expand(-1, num_frames, -1, -1, -1) for f in pair(seed, num_frames))
    weights = [0.0, *[1.0] * (num_frequencies(num_frames, transform) - 1)]
    gap = spectrum_gap(student, teacher, transform=transform, kind=kind, frequency_weights=weights)
    # the logarithm makes much of what single precision rounds: up to 4e-4 in 200 seeds, where motion gives about 1
    assert gap.item() == pytest.approx(0, abs=2e-3)


def test_what_shares_no_frequency_is_2_apart() -> None:
    still = torch.ones(1, 4, 1, 1, 1)
    swinging = torch.tensor([1.0, -1.0, 1.0, -1.0]).view_as(still)
    assert spectrum_gap(still, swinging).item() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(num_frames=FRAMES, seed=SEEDS, constant=st.floats(-5, 5))
def test_without_its_zero_frequency_a_constant_over_time_does_not_count(transform, num_frames, seed, constant) -> None:
    student, teacher = pair(seed, num_frames)
    weights = [0.0] + [1.0] * (num_frequencies(num_frames, transform) - 1)
    options = {"transform": transform, "normalised": False, "frequency_weights": weights}
    gap = spectrum_gap(student, teacher, **options).item()
    assert spectrum_gap(student + constant, teacher, **options).item() == pytest.approx(gap, rel=1e-3, abs=1e-5)
    if abs(constant) > 0.5:
        assert spectrum_gap(teacher + constant, teacher, transform=transform, kind="complex", normalised=False) > 0.1


def test_weights_by_hand() -> None:
    student, teacher = (torch.tensor(f).view(1, 2, 1, 1, 1) for f in ([3.0, 1.0], [1.0, 1.0]))
    # amplitudes (4, 2) / √2 and (2, 0) / √2: squared gaps 2 and 2, over 2 elements
    gap = spectrum_gap(student, teacher, normalised=False, frequency_weights=[0.5, 3.0])
    assert gap.item() == pytest.approx((0.5 * 2 + 3 * 2) / 2, rel=1e-5)


def test_weights_come_before_the_norm() -> None:
    student, teacher = (torch.tensor(f).view(1, 2, 1, 1, 1) for f in ([5.0, 1.0], [3.0, 1.0]))
    # amplitudes (6, 4) and (4, 2) over √2; weighted (6, 8) and (4, 4); of unit norm (0.6, 0.8) and (0.7071, 0.7071)
    gap = spectrum_gap(student, teacher, frequency_weights=[1.0, 4.0])
    assert gap.item() == pytest.approx((0.70711 - 0.6) ** 2 + (0.8 - 0.70711) ** 2, rel=1e-3)


@pytest.mark.parametrize("weights", [[0, 1, 1], [0, 1, -1, 1]])
def test_weights_of_another_number_or_sign_are_refused(weights: list[float]) -> None:
    student, teacher = pair(0, 6)
    with pytest.raises(ValueError, match=r"frequency_weights for 6 frames must be 4 numbers, none negative, got \[0, "):
        spectrum_gap(student, teacher, frequency_weights=weights)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_the_student_alone_and_is_finite_where_features_are_dead(transform, kind) -> None:
    student, teacher = pair(0, 4)
    student[:, :, 0] = 0
    student.requires_grad_()
    teacher.requires_grad_()
    spectrum_gap(student, teacher, transform=transform, kind=kind).backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


# Kernels


ONE = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # every coefficient ½
STEP = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # one frequency down, none across


def test_kernels_by_hand() -> None:
    assert frequency_distribution([ONE[None]]).tolist() == pytest.approx([0.25] * 4)
    assert frequency_distribution([STEP[None]]).tolist() == pytest.approx([0, 0, 1, 0], abs=1e-6)
    constant = torch.ones(2, 2)
    # within a layer the energies are averaged, (4 + ¼, ¼, ¼, ¼) / 2, and then brought to sum 1
    together = frequency_distribution([torch.stack([constant, ONE])])
    assert together.tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05])
    # over layers, the distributions are
    apart = frequency_distribution([constant[None], ONE[None]])
    assert apart.tolist() == pytest.approx([0.625, 0.125, 0.125, 0.125])


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_a_constant_kernel_is_all_mean(size: int) -> None:
    found = frequency_distribution([torch.full((4, 2, size, size), 0.3)])
    assert found.tolist() == pytest.approx([1] + [0] * (size**2 - 1), abs=1e-6)


@given(seed=SEEDS, size=st.integers(2, 5), num_layers=st.integers(1, 3), scale=st.floats(0.01, 100))
def test_the_distribution_against_plain_sums_blind_to_scale_and_duplicates(seed, size, num_layers, scale) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(3, 2, size, size, generator=generator) for _ in range(num_layers)]
    found = frequency_distribution(layers)
    shares = []
    for layer in layers:
        kernels = layer.double().numpy().reshape(-1, size, size)
        energy = sum(plain_dct(plain_dct(kernel).T).T ** 2 for kernel in kernels)
        shares.append(energy / energy.sum())
    np.testing.assert_allclose(found.view(size, size), np.mean(shares, axis=0), atol=1e-5)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    changed = [torch.cat([layer * scale] * 2, dim=i % 2) for i, layer in enumerate(layers)]
    torch.testing.assert_close(frequency_distribution(changed), found, atol=1e-5, rtol=1e-4)
    assert distribution_gap(frequency_distribution(changed), found).item() == pytest.approx(0, abs=1e-5)


def test_kernels_of_zeros_have_no_distribution_and_no_nan() -> None:
    assert frequency_distribution([torch.zeros(2, 2, 3, 3)]).tolist() == [0] * 9


def test_divergence_by_hand_and_its_gradient() -> None:
    student = torch.tensor([0.75, 0.25], requires_grad=True)
    teacher = torch.tensor([0.5, 0.5], requires_grad=True)
    gap = distribution_gap(student, teacher)
    assert gap.item() == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    gap.backward()
    assert student.grad.tolist() == pytest.approx([-0.5 / 0.75, -0.5 / 0.25])
    assert teacher.grad is None
    assert distribution_gap(teacher, teacher).item() == 0


@given(seed=SEEDS)
def test_a_divergence_is_never_negative_and_bears_zeros(seed: int) -> None:
    shares = torch.rand(2, 9, generator=torch.Generator().manual_seed(seed))
    shares[:, 0] = 0
    student, teacher = shares / shares.sum(dim=1, keepdim=True)
    assert distribution_gap(student, teacher).item() >= -1e-6


def test_autocast_leaves_spectra_and_distributions_in_full_precision() -> None:
    student, teacher = pair(0, 8)
    kernels = [torch.randn(4, 3, 3, 3), torch.randn(2, 4, 3, 3)]

    def gaps() -> list[float]:
        found = [spectrum_gap(student, teacher, transform="dct").item()]
        ours, theirs = frequency_distribution(kernels), frequency_distribution([3 * kernel for kernel in kernels])
        return [*found, *ours.tolist(), distribution_gap(ours, theirs).item()]

    expected = gaps()
    assert expected[-1] == pytest.approx(0, abs=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gaps() == pytest.approx(expected, rel=1e-6, abs=1e-9)
