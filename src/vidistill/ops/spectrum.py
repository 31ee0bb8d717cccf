"""Spectra: of features over time, and of convolution kernels over space.

After the abstract of Su et al., "Collaborative Distillation in the Parameter and Spectrum Domains for Video Action
Recognition", 2020 (arXiv 2009.06902). Only the abstract is public to us, so every formula is our choice; see
docs/collaborative.md.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

LEAST_PART = 1e-4  # of a whole spectrum's norm: far above rounding, far below motion

Transform = Literal["fft", "dct"]
SpectrumKind = Literal["amplitude", "log", "power", "complex"]


def num_frequencies(num_frames: int, transform: Transform) -> int:
    """How many frequencies `num_frames` frames have: half as many and the mean for the FFT, as many for the DCT."""
    return num_frames // 2 + 1 if transform == "fft" else num_frames


def temporal_spectrum(features: Tensor, *, transform: Transform = "fft", kind: SpectrumKind = "amplitude") -> Tensor:
    """(B, F, …) the orthonormal spectrum of features (B, T, …) over time, so that ‖spectrum‖ = ‖features‖.

    kind: "complex" for the spectrum itself, (B, F, …, 2) with its real and imaginary parts; "amplitude" for its
    magnitude, "power" for the square of that, "log" for log(1 + amplitude).
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
        # the full FFT has the other frequencies twice, once negative: √2 keeps the norm
        scale = torch.full((spectrum.shape[1],), math.sqrt(2), device=features.device)
        scale[0] = 1
        if features.shape[1] % 2 == 0:
            scale[-1] = 1
        spectrum = spectrum * scale.view(-1, *[1] * (features.ndim - 2))
        if kind == "complex":
            return torch.view_as_real(spectrum)
        # 1e-12: the gradient is 0 where the spectrum is, as of a dead feature
        amplitude = torch.view_as_real(spectrum).square().sum(dim=-1).add(1e-12).sqrt()
    if kind == "power":
        return amplitude.square()
    return amplitude.log1p() if kind == "log" else amplitude


def spectrum_gap(
    student: Tensor,
    teacher: Tensor,
    *,
    transform: Transform = "fft",
    kind: SpectrumKind = "amplitude",
    frequency_weights: Sequence[float] | None = None,
    normalised: bool = True,
) -> Tensor:
    """The distance between the temporal spectra of two clips' features, 0 for equal ones; the teacher gets no gradient.

    student, teacher: (B, T, C, H, W). normalised: each clip's spectrum has unit norm, and the squared distance is
    summed, so 0 <= gap <= 2 for amplitudes; otherwise it is the mean over the elements of the features, which for
    kind "complex" is the features' mean squared error (Parseval). frequency_weights: of the squares, one for each
    frequency from the mean over time (frequency 0) upward; all 1 by default. They come before the norm, so that what
    is left out is not in the norm either; the norm counts as `LEAST_PART` of the whole spectrum's at least, or the
    rounding errors of a still clip would be its motion.
    Errors: ValueError for another number of weights than of frequencies, or a negative one.
    """
    spectra = [temporal_spectrum(f, transform=transform, kind=kind) for f in (student, teacher.detach())]
    floors = [LEAST_PART * _norm(s) for s in spectra]
    if frequency_weights is not None:
        expected = num_frequencies(student.shape[1], transform)
        if len(frequency_weights) != expected or min(frequency_weights) < 0:
            raise ValueError(
                f"frequency_weights for {student.shape[1]} frames must be {expected} numbers, none negative, "
                f"got {list(frequency_weights)}"
            )
        scale = torch.tensor(frequency_weights, device=student.device, dtype=torch.float32).sqrt()
        spectra = [s * scale.view(-1, *[1] * (s.ndim - 2)) for s in spectra]
    if normalised:
        norms = [_norm(s).maximum(floor).clamp(min=1e-12) for s, floor in zip(spectra, floors, strict=True)]
        spectra = [s / norm for s, norm in zip(spectra, norms, strict=True)]
    return (spectra[0] - spectra[1]).square().sum() / (len(student) if normalised else student.numel())


def _norm(spectrum: Tensor) -> Tensor:
    """(B, 1, …) the norm of each clip's spectrum (B, F, …)."""
    return spectrum.flatten(1).norm(dim=1).view(-1, *[1] * (spectrum.ndim - 1))


def cosine_basis(length: int, *, device: torch.device | None = None) -> Tensor:
    """(length, length): the orthonormal DCT-II as a matrix, with a row for each frequency."""
    place = torch.arange(length, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi / length * (place[None] + 0.5) * place[:, None]) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis


def frequency_distribution(kernels: Iterable[Tensor]) -> Tensor:
    """(k²,) summing to 1: how the energy of k×k kernels is distributed over their k² spatial frequencies.

    kernels: (…, k, k) tensors of one k, one for each layer. The energy of a frequency (DCT-II squared) is averaged over
    the kernels of a layer, scaled to sum 1 over the frequencies, then averaged over the layers, so that neither scale
    nor width counts.
    """
    shares = []
    for kernel in kernels:
        basis = cosine_basis(kernel.shape[-1], device=kernel.device)
        with torch.autocast(kernel.device.type, enabled=False):
            spectrum = basis @ kernel.float() @ basis.T
        energy = spectrum.square().flatten(-2).flatten(0, -2).mean(dim=0)  # (k²,)
        shares.append(energy / energy.sum().clamp(min=1e-30))
    return torch.stack(shares).mean(dim=0)


def distribution_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of two distributions (n,), 0 for equal ones; the teacher gets no gradient."""
    target = teacher.detach().clamp(min=1e-12)
    return (target * (target.log() - student.clamp(min=1e-12).log())).sum()
