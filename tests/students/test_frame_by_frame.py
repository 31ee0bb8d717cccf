"""A causal network frame by frame says what it says of the clip, and keeps a state of one size."""

import pytest
import torch

from vidistill.models import build_network
from vidistill.ops.clip_view import ClipView
from vidistill.runtimes.measure import noise_frames, profile_students
from vidistill.students.card import Card
from vidistill.students.state import without_key_frame
from vidistill.students.windows import FrameByFrame, as_student

VIEW = ClipView(num_frames=3, sampling="dense", stride=2, crop=32, size=32)
OPTIONS = {"num_classes": 4, "backbone": "test_resnet", "causal": True}


@pytest.fixture
def student() -> FrameByFrame:
    network = build_network("tsm", options=OPTIONS).eval()
    torch.nn.init.normal_(network.head.weight)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # timm starts each block's last norm at 0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    model = as_student(network, Card(view=VIEW))
    assert isinstance(model, FrameByFrame)
    return model.eval()


def run(student, frames):
    """The outputs and the state after each frame, with a key frame every stride."""
    state, found = None, []
    for index, frame in enumerate(frames):
        if index % VIEW.stride == 0 and state is not None:
            state = without_key_frame(state)
        outputs, state = student(frame, state)
        found.append((outputs, state))
    return found


@torch.no_grad()
def test_a_stream_says_what_the_clip_that_it_began_with_is(student) -> None:
    frames = torch.randn(6, 2, 3, 32, 32)
    found = run(student, frames)
    for num_frames in (1, 2, 3):
        expected = student.network(frames[: 2 * num_frames : 2].transpose(0, 1))
        for outputs, _ in found[2 * num_frames - 2 : 2 * num_frames]:  # the second is held
            torch.testing.assert_close(outputs, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[4][0], student(frames[::2].transpose(0, 1))[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_later_it_is_the_mean_of_the_last_logits(student) -> None:
    frames = torch.randn(9, 1, 3, 32, 32)
    memory, logits = None, []
    for frame in frames[::2]:
        outputs, memory = student.network.step(frame, memory)
        logits.append(outputs)
    torch.testing.assert_close(run(student, frames)[8][0], torch.stack(logits[-3:]).mean(dim=0))


@torch.no_grad()
def test_the_state_keeps_its_size_and_streams_split(student) -> None:
    frames = torch.randn(9, 2, 3, 32, 32)
    together = run(student, frames)
    shapes = {tuple((name, tuple(t.shape)) for name, t in sorted(state.items())) for _, state in together}
    assert len(shapes) == 1
    for b in range(2):
        for (mine, state), (both, states) in zip(run(student, frames[:, b : b + 1]), together, strict=True):
            torch.testing.assert_close(mine[0], both[b], atol=1e-5, rtol=1e-5)
            for name, tensor in state.items():
                torch.testing.assert_close(tensor[0], states[name][b], atol=1e-5, rtol=1e-5)


def test_a_stream_costs_a_frame_where_a_window_costs_a_clip(student) -> None:
    plain = as_student(build_network("tsm", options={**OPTIONS, "causal": False}), Card(view=VIEW)).eval()
    found = profile_students({"causal": student, "plain": plain}, noise_frames(1, (1, 1)), interval=2)
    clip = found["plain"]["gmacs"]["clip"]
    assert found["causal"]["gmacs"]["clip"] == pytest.approx(clip)
    assert found["causal"]["gmacs"]["amortised"] == pytest.approx(clip / 3 / 2, rel=1e-3)
    assert found["plain"]["gmacs"]["amortised"] == pytest.approx(clip / 2)
