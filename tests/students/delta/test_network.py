import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.networks import TinySegmenter, settle_norms
from vidistill.errors import UserError
from vidistill.models.libraries import import_torchvision
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.network import DeltaNetwork, delta_network
from vidistill.students.norms import fuse_norms, fused_copy
from vidistill.students.state import without_key_frame
from vidistill.students.student import PerFrame


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randn(4, 2, 3, 19, 26)  # time, batch


def student_of(network: nn.Module, rank: int | None = None, **selection):
    plan = plan_conversion(network, torch.zeros(1, 3, 19, 26), Selection(**selection), [StudentSpec(rank=rank)])
    return delta_network(network, plan).eval()


def folded_state(student: DeltaNetwork, frame: torch.Tensor):
    """The state that the first delta frame leaves."""
    student.folding = "later"
    _, state = student(frame, student(frame)[1])
    student.folding = "never"
    return state


def scale_gap(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


@torch.no_grad()
def test_key_frames_are_the_network_and_still_clips_are_still_to_the_bit(network, frames) -> None:
    student = student_of(network)
    outputs, state = student(frames[0])
    assert torch.equal(outputs, network(frames[0]))
    for _ in range(2):
        again, state = student(frames[0], state)
        assert torch.equal(again, outputs)


@torch.no_grad()
def test_delta_frames_follow_the_equation(network: TinySegmenter, frames) -> None:
    """z_t = z_0 + g(x_t − x_0) layer by layer, written out for the tiny network."""
    student = student_of(network)
    _, state = student(frames[0])
    found, _ = student(frames[1], state)
    layers = student.blocks()

    def stem(x):
        return F.relu(network.stem[1](network.stem[0](x)))

    x0, xt = stem(frames[0]), stem(frames[1])
    z0 = network.body[0](x0)
    zt = z0 + layers["body.0"].student.linear(xt - x0)
    b0, bt = (F.relu(network.body[1](z)) for z in (z0, zt))
    mixed = network.mix(b0) + layers["mix"].student.linear(bt - b0)
    torch.testing.assert_close(found, network.head(F.relu(mixed + bt)))


@torch.no_grad()
def test_folded_equals_unfolded(network, frames) -> None:
    student = student_of(network)
    _, state = student(frames[0])
    folded = folded_state(student, frames[0])
    assert len(folded) == len(state) // 2
    student.folding = "later"
    later = student(frames[1], state)[1]
    assert all(torch.equal(later[name], tensor) for name, tensor in folded.items())
    student.folding = "never"
    for frame in frames[1:]:
        found, kept = student(frame, folded)
        assert kept is folded
        assert scale_gap(found, student(frame, state)[0]) < 1e-5


@torch.no_grad()
def test_full_rank_is_the_network_on_every_frame(network, frames) -> None:
    student = student_of(network, rank=10**6)
    _, state = student(frames[0])
    for frame in frames[1:]:
        assert scale_gap(student(frame, state)[0], network(frame)) < 1e-5


@torch.no_grad()
def test_streams_concatenate_and_split(network, frames) -> None:
    student = student_of(network)
    student.folding = "later"
    _together, state = student(frames[0])
    after, state = student(frames[1], state)
    for i in range(2):
        _, own = student(frames[0, i : i + 1])
        single, own = student(frames[1, i : i + 1], own)
        torch.testing.assert_close(single, after[i : i + 1])
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, state[name][i : i + 1])


@torch.no_grad()
def test_a_layer_called_twice_keeps_two_states(frames) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.twice = nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.last(self.twice(torch.tanh(self.twice(self.first(x)))))

    network = Shared()
    student = student_of(network, rank=10**6)
    _outputs, state = student(frames[0])
    assert {name.split("/")[1] for name in state} == {"twice", "twice#1"}
    for form in (state, folded_state(student, frames[0])):
        assert scale_gap(student(frames[1], form)[0], network(frames[1])) < 1e-5


@torch.no_grad()
def test_in_place_changes_of_what_is_kept_are_refused(frames) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))

        def forward(self, x):
            x = self.convs[1](self.convs[0](x))
            return self.convs[2](x.relu_())

    with pytest.raises(UserError, match=r"key/convs\.1/output.*in place"):
        student_of(InPlace())(frames[0])


@torch.no_grad()
def test_in_place_activations_are_made_safe(network, frames) -> None:
    student = student_of(network, leave_first=0)
    assert network.stem[2].inplace, "the user's own network stays as it was"
    outputs, _ = student(frames[0])
    assert torch.equal(outputs, network(frames[0]))


@torch.no_grad()
def test_nothing_is_left_behind(network, frames) -> None:
    student = student_of(network)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    _, state = student(frames[0])
    student(frames[1], state)
    assert student.tape.is_key_frame
    assert student.tape.written == {}
    assert student.tape._read == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert without_key_frame(state) is None
    assert without_key_frame({**state, "memory": frames}) == {"memory": frames}


@torch.no_grad()
def test_fused_norms_change_nothing_but_the_work(network, frames) -> None:
    student = student_of(network)
    fused = fused_copy(student, frames[0, :1])
    norms = [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [], "both norms follow a convolution that nothing else reads"
    for folding in ("never", "later"):
        student.folding = fused.folding = folding
        state, fused_state = None, None
        for frame in frames[:3]:
            expected, state = student(frame, state)
            found, fused_state = fused(frame, fused_state)
            assert scale_gap(found, expected) < 1e-5


class Accumulates(nn.Module):
    """A norm whose output is changed in place, behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += 1
        return y


@torch.no_grad()
def test_in_place_changes_behind_a_norm(frames) -> None:
    """They would reach what a delta block keeps; a plain convolution keeps nothing."""
    network = settle_norms(Accumulates()).eval()
    plain = PerFrame(copy.deepcopy(network))
    assert fuse_norms(plain, frames[0]) == 1
    assert scale_gap(plain(frames[0])[0], network(frames[0])) < 1e-6
    student = student_of(network, leave_first=0, leave_last=0)
    assert fuse_norms(student, frames[0]) == 0


class Branches(nn.Module):
    """Convolutions whose output is used by more than the norm behind it, that are called under several, or whose norm
    serves twice."""

    def __init__(self) -> None:
        super().__init__()
        self.sole, self.read, self.viewed, self.returned, self.shared = (nn.Conv2d(3, 3, 1) for _ in range(5))
        self.level = nn.Conv2d(3, 3, 1)  # as an EfficientDet head has it: one kernel, a norm a level
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(7))

    def forward(self, x):
        if x.mean() > 1e9:  # what torch.fx could not follow
            return x
        x = self.norms[0](self.sole(x))
        read = self.read(x)
        x = self.norms[1](read) + read
        viewed = self.viewed(x)
        x = self.norms[2](viewed) + viewed.flatten(2).mean(dim=2)[..., None, None]
        returned = self.returned(x)
        x = self.norms[4](self.shared(self.norms[3](returned)))
        x = self.norms[5](self.level(x)) + self.norms[6](self.level(x[..., ::2, ::2])).mean()
        return {"out": self.norms[4](x), "aside": returned}


@torch.no_grad()
def test_only_norms_that_alone_read_a_layer_are_fused(frames) -> None:
    network = settle_norms(Branches()).eval()
    fused = fused_copy(PerFrame(network), frames[0])
    kinds = [type(norm) for norm in fused.network.norms]
    assert kinds == [nn.Identity, *[nn.BatchNorm2d] * 6]
    found, expected = fused(frames[0])[0], network(frames[0])
    assert all(scale_gap(found[name], expected[name]) < 1e-6 for name in expected)


@torch.no_grad()
def test_norms_with_their_activation_are_fused(frames) -> None:
    import_torchvision()
    import timm

    network = settle_norms(timm.create_model("mobilenetv3_small_050", num_classes=4)).eval()
    fused = fused_copy(PerFrame(network), frames[0])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert scale_gap(fused(frames[0])[0], network(frames[0])) < 1e-4
