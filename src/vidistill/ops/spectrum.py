"""Spectra: of features over time, and of convolution kernels over space.

After the abstract of Su et al., "Collaborative Distillation in the Parameter and Spectrum Domains for Video Action
Recognition", 2020 (arXiv 2009.06902). Only the abstract is public to us, so every formula is our choice, see
docs/collaborative.md.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

LEAST_PART = 1e-4  # of a whole spectrum's norm: far above rounding, far below motion

Transform = Literal["fft", "dct"]
Kind = Literal["amplitude", "log", "power", "complex"]


def num_frequencies(num_frames: int, transform: Transform) -> int:
    """The frequencies that `num_frames` frames have: half of them and the mean for the FFT, as many for the DCT."""
    return num_frames // 2 + 1 if transform == "fft" else num_frames


def temporal_spectrum(features: Tensor, *, transform: Transform = "fft", kind: Kind = "amplitude") -> Tensor:
    """The orthonormal spectrum of features over time, (B, F, …) of (B, T, …), so that ‖spectrum‖ = ‖features‖.

    The FFT's frequencies that occur twice in the full transform, once negative, are multiplied by √2 for that. kind
    "complex" is the spectrum itself, with its real and imaginary parts as a last axis of 2; "amplitude" its magnitude,
    "power" the square of it, "log" log(1 + amplitude).
    """
    features = features.float()
    if transform == "dct":
        basis = cosine_basis(features.shape[1], device=features.device)
        with torch.autocast(features.device.type, enabled=False):
            spectrum = torch.einsum("ft,bt...->bf...", basis, features)
        if kind == "complex":
            return torch.stack([spectrum, torch.zeros_like(spectrum)], dim=-1)
        amplitude = spectrum.abs()
    else:
        spectrum = torch.fft.rfft(features, dim=1, norm="ortho")
        twice = _occurrences(features.shape[1], features.device).sqrt()
        spectrum = spectrum * twice.view(-1, *[1] * (features.ndim - 2))
        if kind == "complex":
            return torch.view_as_real(spectrum)
        amplitude = _magnitude(spectrum)
    return {"amplitude": lambda: amplitude, "power": amplitude.square, "log": amplitude.log1p}[kind]()


def _occurrences(num_frames: int, device: torch.device) -> Tensor:
    """How often each frequency of the real FFT occurs in the full one."""
    counts = torch.full((num_frames // 2 + 1,), 2.0, device=device)
    counts[0] = 1
    if num_frames % 2 == 0:
        counts[-1] = 1
    return counts


def _magnitude(spectrum: Tensor) -> Tensor:
    """|z| with a gradient of 0 where z is 0, as at the imaginary part of a dead feature."""
    return torch.view_as_real(spectrum).square().sum(dim=-1).add(1e-12).sqrt()


def spectrum_gap(
    student: Tensor,
    teacher: Tensor,
    *,
    transform: Transform = "fft",
    kind: Kind = "amplitude",
    frequency_weights: Sequence[float] | None = None,
    normalised: bool = True,
) -> Tensor:
    """The distance of two feature clips' temporal spectra, 0 for equal ones; no gradient reaches the teacher.

    student, teacher: (B, T, C, H, W). normalised: each clip's spectrum has unit norm, and the squared distance is
    summed, so 0 <= gap <= 2 for amplitudes; otherwise it is the mean over the elements of the features, which for
    kind "complex" is the features' mean squared error (Parseval). frequency_weights: of the squares, one a frequency,
    from the mean over time (frequency 0) upward, so that what is left out is not in the norm either; all 1 by default.
    What is left counts as `LEAST_PART` of the whole spectrum at least, or a still clip's rounding errors would be its
    motion. Errors: ValueError for another number of weights than of frequencies, or a negative one.
    """
    spectra = [temporal_spectrum(f, transform=transform, kind=kind) for f in (student, teacher.detach())]
    floors = [LEAST_PART * _norm(s) for s in spectra]
    if frequency_weights is not None:
        expected = num_frequencies(student.shape[1], transform)
        if len(frequency_weights) != expected or min(frequency_weights) < 0:
            raise ValueError(
                f"{len(frequency_weights)} frequency_weights for {student.shape[1]} frames: give {expected}, "
                "none negative"
            )
        scale = torch.tensor(frequency_weights, device=student.device, dtype=torch.float32).sqrt()
        spectra = [s * scale.view(-1, *[1] * (s.ndim - 2)) for s in spectra]
    if normalised:
        norms = [_norm(s).maximum(floor).clamp(min=1e-12) for s, floor in zip(spectra, floors, strict=True)]
        spectra = [s / norm for s, norm in zip(spectra, norms, strict=True)]
    return (spectra[0] - spectra[1]).square().sum() / (len(student) if normalised else student.numel())


def _norm(spectrum: Tensor) -> Tensor:
    """Of each clip's, with as many axes."""
    return spectrum.flatten(1).norm(dim=1).view(-1, *[1] * (spectrum.ndim - 1))


def cosine_basis(length: int, *, device: torch.device | None = None) -> Tensor:
    """The orthonormal DCT-II as a (length, length) matrix, a frequency a row."""
    place = torch.arange(length, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi / length * (place[None] + 0.5) * place[:, None]) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis


def frequency_distribution(kernels: Iterable[Tensor]) -> Tensor:
    """How the energy of k×k kernels is shared among their k² spatial frequencies, (k²,) that sum to 1.

    kernels: (…, k, k) tensors of one k, a layer each; in each, the energy per frequency (DCT-II squared) is averaged
    over its kernels, then over the layers after each has been brought to sum 1, so that neither scale nor width counts.
    """
    shares = []
    for kernel in kernels:
        basis = cosine_basis(kernel.shape[-1], device=kernel.device)
        with torch.autocast(kernel.device.type, enabled=False):
            spectrum = basis @ kernel.float() @ basis.T
        energy = spectrum.square().flatten(-2).flatten(0, -2).mean(dim=0)
        shares.append(energy / energy.sum().clamp(min=1e-30))
    return torch.stack(shares).mean(dim=0)


def distribution_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of two distributions (n,), 0 for equal ones; no gradient reaches the teacher."""
    target = teacher.detach().clamp(min=1e-12)
    return (target * (target.log() - student.clamp(min=1e-12).log())).sum()
