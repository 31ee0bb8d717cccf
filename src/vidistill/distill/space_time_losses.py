"""The two losses of space-time distillation: where features are active, and what is remembered of their change.

Source: Xiao et al., "Space-Time Distillation for Video Super-Resolution", 2021.
"""

from torch import Tensor
from torch.nn import functional as F


def attention_map(features: Tensor) -> Tensor:
    """Σ_c F_c², (…, H, W), of features (…, C, H, W)."""
    return features.square().sum(dim=-3)


def space_gap(student: Tensor, teacher: Tensor, *, normalised: bool = False) -> Tensor:
    """Mean squared gap between two clips' attention maps; 0 for equal features.

    student, teacher: (…, C, H, W), alike but for the channels. No gradient reaches the teacher's. Mean over pixels,
    frames and clips [ours]. normalised: each map is scaled to unit L2 norm first, and the squares are summed over
    its pixels, so that the gap is in 0…2 and neither size, scale nor number of channels counts
    (after Zagoruyko & Komodakis 2017).
    """
    ours, theirs = attention_map(student), attention_map(teacher.detach())
    if ours.shape != theirs.shape:
        raise ValueError(f"attention maps of {tuple(ours.shape)} and {tuple(theirs.shape)} cannot be compared")
    if not normalised:
        return F.mse_loss(ours, theirs)
    ours, theirs = (F.normalize(maps.flatten(-2), dim=-1) for maps in (ours, theirs))
    return (ours - theirs).square().sum(dim=-1).mean()


def space_energy(teacher: Tensor, *, normalised: bool = False) -> Tensor:
    """What `space_gap` would be of a student whose maps are 0: mean square of the teacher's (…, C, H, W), or 1."""
    return teacher.new_ones(()) if normalised else attention_map(teacher.detach()).square().mean()


def time_gap(student_cell: Tensor, teacher_cell: Tensor) -> Tensor:
    """Mean squared gap between two memory cells (B, C, H, W) of one shared `ConvLSTM`; 0 for equal cells.

    The ConvLSTM learns through both cells, so neither is detached here. The caller detaches the teacher's features
    before they enter it: then the gradient reaches the student and the ConvLSTM, never the teacher.
    """
    if student_cell.shape != teacher_cell.shape:
        raise ValueError(f"cells of {tuple(student_cell.shape)} and {tuple(teacher_cell.shape)} cannot be compared")
    return F.mse_loss(student_cell, teacher_cell)
