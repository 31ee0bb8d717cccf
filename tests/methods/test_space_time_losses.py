import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidistill.methods.space_time import ConvLSTM, attention_map, space_energy, space_gap, time_gap


def test_attention_map_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0]], [[-3.0, 0.0]]])  # two channels, one row
    assert attention_map(features).tolist() == [[10.0, 4.0]]
    assert attention_map(features[None, None]).shape == (1, 1, 1, 2)


def test_space_gap_by_hand() -> None:
    student = torch.tensor([[[1.0, 2.0]], [[-3.0, 0.0]]])[None, None]
    teacher = torch.tensor([[[3.0, 0.0]]])[None, None]  # one channel is enough; its map is 9, 0
    assert space_gap(student, teacher).item() == pytest.approx(((10 - 9) ** 2 + 4**2) / 2)
    # unit maps: (10, 4) / √116 and (1, 0); 2 - 2 cos
    assert space_gap(student, teacher, normalised=True).item() == pytest.approx(2 - 2 * 10 / 116**0.5)
    assert space_energy(student).item() == pytest.approx((10**2 + 4**2) / 2)
    assert space_energy(student, normalised=True).item() == 1


@given(st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_space_gap_of_equal_features_is_zero_and_signs_do_not_matter(frames: int, channels: int, normed: bool) -> None:
    features = torch.randn(2, frames, channels, 4, 5)
    assert space_gap(features, -features, normalised=normed).item() == 0
    assert space_gap(features, torch.randn(2, frames, 3, 4, 5), normalised=normed).item() >= 0


@given(st.floats(0.1, 10))
def test_the_normalised_gap_knows_no_scale(scale: float) -> None:
    student, teacher = torch.randn(1, 2, 3, 4, 5), torch.randn(1, 2, 6, 4, 5)
    gap = space_gap(student, teacher, normalised=True)
    torch.testing.assert_close(space_gap(scale * student, teacher, normalised=True), gap, atol=1e-5, rtol=1e-4)
    assert gap.item() <= 2


def test_features_without_any_activity_have_a_gap() -> None:
    still = torch.zeros(1, 1, 2, 3, 3, requires_grad=True)
    gap = space_gap(still, torch.ones(1, 1, 2, 3, 3), normalised=True)
    gap.backward()
    assert gap.item() == pytest.approx(1)
    assert torch.isfinite(still.grad).all()


@pytest.mark.parametrize("normalised", [False, True])
def test_the_space_gap_moves_the_student_alone(normalised: bool) -> None:
    student, teacher = (torch.randn(1, 2, 3, 4, 5, requires_grad=True) for _ in range(2))
    space_gap(student, teacher, normalised=normalised).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_time_gap_by_hand() -> None:
    ours, theirs = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1), torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    assert time_gap(ours, theirs).item() == pytest.approx((1 + 9) / 2)
    assert time_gap(ours, ours).item() == 0


def test_the_conv_lstm_learns_through_both_cells() -> None:
    lstm, student, teacher = ConvLSTM(2), torch.randn(1, 3, 2, 4, 4, requires_grad=True), torch.randn(1, 3, 2, 4, 4)
    ours, theirs = lstm(student), lstm(teacher)
    through_student, through_teacher, both = (
        torch.autograd.grad(time_gap(*cells), lstm.gates.weight, retain_graph=True)[0]
        for cells in ((ours, theirs.detach()), (ours.detach(), theirs), (ours, theirs))
    )
    torch.testing.assert_close(through_student + through_teacher, both)
    assert min(through_student.abs().max(), through_teacher.abs().max()) > 0
    assert torch.autograd.grad(time_gap(ours, theirs), student)[0].abs().sum() > 0


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="attention maps must have one shape"):
        space_gap(torch.rand(1, 2, 3, 4, 4), torch.rand(1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="cells must have one shape"):
        time_gap(torch.rand(1, 2, 4, 4), torch.rand(1, 3, 4, 4))
