"""A clip network on a stream: what it says of a frame is what it says of the clip that ends there."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.networks import TinyClips
from vidistill.errors import UserError
from vidistill.methods.features import feature_shapes
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.runtimes import RUNTIMES
from vidistill.runtimes.eager import as_frames
from vidistill.runtimes.measure import noise_frames
from vidistill.students.card import Card
from vidistill.students.state import without_key_frame
from vidistill.students.student import PerFrame
from vidistill.students.windows import LookAhead, Windowed, as_student, refuse_clips

VIEW = ClipView(num_frames=3, sampling="dense", stride=2, crop=12, size=8)
CARD = Card(view=VIEW)


@pytest.fixture
def student() -> Windowed:
    return Windowed(TinyClips(num_classes=4).eval(), CARD).eval()


def run(student: Windowed, frames: Tensor, interval: int) -> list[Tensor]:
    """The outputs of frames (T, B, 3, H, W) with a key frame every `interval` of them."""
    state, found = None, []
    for index, frame in enumerate(frames):
        if index % interval == 0 and state is not None:
            state = without_key_frame(state)
        outputs, state = student(frame, state)
        found.append(outputs)
    return found


def window_at(frames: Tensor, index: int) -> Tensor:
    """(B, 3, 3, H, W): the frames at index − 4, − 2 and − 0, the first one for those before it."""
    return torch.stack([frames[max(0, index - back)] for back in (4, 2, 0)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("interval", [1, 2, 5])
def test_a_frame_says_what_its_clip_does_and_holds_it(student, interval: int) -> None:
    frames = torch.randn(11, 2, 3, 12, 12)
    for index, outputs in enumerate(run(student, frames, interval)):
        last_key = index - index % interval
        expected, state = student(window_at(frames, last_key))
        assert state == {}
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(expected, student.network(VIEW(window_at(frames, last_key))))


@torch.no_grad()
def test_the_network_runs_on_key_frames_alone(student) -> None:
    calls = []
    student.network.register_forward_hook(lambda *_: calls.append(1))
    run(student, torch.randn(9, 1, 3, 12, 12), interval=4)
    assert len(calls) == 3


@torch.no_grad()
def test_streams_concatenate_split_and_go_on_in_another_copy(student) -> None:
    frames = torch.randn(7, 2, 3, 12, 12)
    together = run(student, frames, interval=3)
    for b in range(2):
        alone = run(student, frames[:, b : b + 1], interval=3)
        for mine, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(mine[0], all_of_them[b])
    state = None
    for frame in frames[:5]:  # in the middle of an interval
        _, state = student(frame, state)
    other = Windowed(student.network, CARD).eval()
    for frame in frames[5:]:
        expected, next_state = student(frame, state)
        found, state = other(frame, state)
        assert torch.equal(found, expected)
        assert state.keys() == next_state.keys()


@torch.no_grad()
def test_the_state_is_a_window_of_small_frames_and_does_not_grow(student) -> None:
    state, sizes = None, set()
    for frame in torch.randn(12, 1, 3, 12, 12):
        _, state = student(frame, state)
        sizes.add(tuple((name, tuple(tensor.shape)) for name, tensor in state.items()))
    assert sizes == {(("window", (1, 5, 3, 8, 8)), ("key/outputs", (1, 4)))}
    assert list(without_key_frame(state)) == ["window"]


@torch.no_grad()
@pytest.mark.parametrize(("interval", "num_kept"), [(1, 9), (2, 5), (3, 9), (4, 3), (6, 5), (8, 3)])
def test_where_key_frames_come_regularly_only_what_they_look_at_is_kept(interval: int, num_kept: int) -> None:
    card = Card(view=ClipView(num_frames=3, sampling="dense", stride=4, crop=12, size=8))
    network = TinyClips(num_classes=4).eval()
    whole, sparing = Windowed(network, card).eval(), Windowed(network, card).eval()
    sparing.expect_key_frames(interval)
    frames = torch.randn(21, 2, 3, 12, 12)
    for found, expected in zip(run(sparing, frames, interval), run(whole, frames, interval), strict=True):
        torch.testing.assert_close(found, expected)
    _, state = sparing(frames[0])
    assert state["window"].shape[1] == num_kept


@torch.no_grad()
def test_wrapped_outputs_are_logits_on_a_stream() -> None:
    class Named(TinyClips):
        def forward(self, clips):
            return {"logits": super().forward(clips)}

    named = Named(num_classes=4).eval()
    frame = torch.randn(1, 3, 12, 12)
    outputs, state = Windowed(named, CARD)(frame)
    assert torch.equal(outputs, named(VIEW(window_at(frame[None], 0)))["logits"])
    assert torch.equal(state["key/outputs"], outputs)


def test_the_contract_by_the_view() -> None:
    network = TinyClips(2)
    assert isinstance(as_student(network, Card()), PerFrame)
    assert isinstance(as_student(network, Card(view=WindowView(3))), LookAhead)
    assert isinstance(as_student(network, CARD), Windowed)
    assert as_student(network, CARD).view == VIEW
    refuse_clips(None, "delta")
    with pytest.raises(UserError, match=r"method delta is for networks that see single frames; .* take supervised"):
        refuse_clips(VIEW, "delta")


@torch.no_grad()
def test_a_stream_in_onnx_runtime(student, tmp_path: Path) -> None:
    """The files alone, driven as a user would: every second frame, as the view has it; the window goes in and out."""
    exported = RUNTIMES["onnx"].export(student, tmp_path)
    assert exported.gap < 1e-4
    key, delta = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        for name in ("key.onnx", "delta.onnx")
    )
    pixels = noise_frames(15, (12, 12))[:, None]
    frames = as_frames(student, pixels)
    outputs, window = key.run(["output", "next/window"], {"frame": pixels[0].numpy()})
    assert window.shape == (1, 3, 3, 8, 8)
    found = [outputs]
    for frame in pixels[2::2]:
        outputs, window = delta.run(["output", "next/window"], {"frame": frame.numpy(), "window": window})
        found.append(outputs)
    for outputs, expected in zip(found, run(student, frames, interval=2)[::2], strict=True):
        torch.testing.assert_close(torch.from_numpy(outputs), expected, atol=1e-4, rtol=1e-4)


def test_the_size_of_exported_frames_is_the_views(student, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes the squares that its view cuts, 12x12, got 32x24; leave the size out"):
        RUNTIMES["onnx"].export(student, tmp_path, size=(24, 32))


def test_a_network_of_ones_own_says_which_size_is_too_small() -> None:
    class Shrinking(TinyClips):
        def forward(self, clips: Tensor) -> Tensor:
            return super().forward(torch.nn.functional.max_pool2d(clips.flatten(0, 1), 4).unflatten(0, clips.shape[:2]))

    student = Windowed(Shrinking(num_classes=2).eval(), Card(view=ClipView(num_frames=2, crop=3, size=3))).eval()
    with pytest.raises(UserError, match=r"a clip of 3x3 is too small .* the smallest that works with 2 frames is 4x4"):
        student(torch.zeros(1, 2, 3, 3, 3))
    with pytest.raises(UserError, match=r"a clip of 3x3 is too small"):
        feature_shapes(student.network, torch.zeros(1, 2, 3, 3, 3), ["first"])


def test_one_value_has_no_spread() -> None:
    student = Windowed(TinyClips(num_classes=2), Card(view=ClipView(num_frames=1, crop=2, size=2))).train()
    with pytest.raises(UserError, match=r"one value, which has no spread; raise optim\.batch_size, or the size"):
        student(torch.zeros(1, 1, 3, 2, 2))
