import pytest
import torch
from torch import nn

from tests.networks import TinyWindows
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models.vespcn import vespcn
from vidistill.ops.clip_view import WindowView
from vidistill.runtimes import RUNTIMES
from vidistill.runtimes.eager import as_frames
from vidistill.runtimes.measure import noise_frames
from vidistill.students.card import Card
from vidistill.students.student import PerFrame
from vidistill.students.windows import LookAhead, set_tile

CARD = Card(view=WindowView(3))


class Numbers(nn.Module):
    """A window's pixels as they are: what was looked at for which frame."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, :, 0, 0, 0]


def streamed(student, frames) -> tuple[list, list]:
    """Outputs as they come, None included, and those that are flushed."""
    state, found = None, []
    for frame in frames:
        outputs, state = student(frame, state)
        assert all(tensor.shape[0] == len(frame) for tensor in state.values()), "batch first"
        found.append(outputs)
    return found, student.flush(state)


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
def test_each_frame_is_seen_with_the_frames_around_it(window: int, num_frames: int) -> None:
    frames = [torch.full((1, 3, 2, 2), float(i)) for i in range(num_frames)]
    found, late = streamed(LookAhead(Numbers(), Card(view=WindowView(window))), frames)
    middle = window // 2
    assert [outputs is None for outputs in found] == [i < middle for i in range(num_frames)]
    seen = [outputs[0].tolist() for outputs in [*found, *late] if outputs is not None]
    around = range(-middle, middle + 1)
    assert seen == [[min(max(i + k, 0), num_frames - 1) for k in around] for i in range(num_frames)]


def test_nothing_seen_is_nothing_to_flush() -> None:
    assert LookAhead(Numbers(), CARD).flush(None) == []


@torch.no_grad()
def test_a_larger_window_is_cut_to_the_networks_own() -> None:
    network = TinyWindows(window=3).eval()
    windows = torch.rand(2, 7, 3, 6, 8)
    student = LookAhead(network, CARD)
    outputs, state = student(windows)
    assert state == {}
    torch.testing.assert_close(outputs, network(windows[:, 2:5]), atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"window must be an odd number of frames, .* got 4"):
        WindowView(4)
    for length in (1, 4):
        with pytest.raises(ValueError, match=f"windows of {length} frames have no middle of 3; expected an odd number"):
            student(windows[:, :length])


@torch.no_grad()
def test_a_delta_network_behind_a_window_is_the_delta_network_on_windows() -> None:
    method = Delta()
    inner = method.finish(method.prepare(TinyWindows().eval(), torch.zeros(1, 3, 3, 8, 10), card=CARD))
    frames = [torch.rand(1, 3, 8, 10) for _ in range(4)]
    found, late = streamed(LookAhead(inner, inner.card), frames)
    padded = [frames[0], *frames, frames[-1]]
    state = None
    for i, outputs in enumerate([*found[1:], *late]):
        expected, state = inner(torch.stack(padded[i : i + 3], dim=1), state)
        torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("network", [TinyWindows(), nn.Sequential(TinyWindows())], ids=["scale", "no scale"])
@torch.no_grad()
def test_tiles_give_the_whole_frame(network: nn.Module) -> None:
    """Also of a network of one's own that does not say how much it enlarges."""
    student = LookAhead(network.eval(), CARD)
    windows = torch.rand(1, 3, 3, 70, 45)
    whole, _ = student(windows)
    set_tile(student, 20)
    tiled, _ = student(windows)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


def test_tiles_are_refused_where_they_make_no_sense() -> None:
    with pytest.raises(UserError, match="leave --tile out"):
        set_tile(PerFrame(nn.Identity()), 8)
    with pytest.raises(UserError, match="--tile 6: give a multiple of 4"):
        set_tile(LookAhead(Numbers(), CARD), 6)


def moving_vespcn() -> nn.Module:
    """With flows, so that frames are really warped."""
    network = vespcn(2, channels=4, feature_channels=4).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("build", [lambda: TinyWindows().eval(), moving_vespcn], ids=["tiny", "vespcn"])
def test_an_exported_graph_takes_windows(build, tmp_path) -> None:
    """The file alone, driven as a user would."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build()
    student = LookAhead(network, CARD).eval()
    RUNTIMES["onnx"].export(student, tmp_path, size=(6, 8))
    key = onnxruntime.InferenceSession(tmp_path / "key.onnx")
    windows = noise_frames(3 * 3, (6, 8)).unflatten(0, (3, 3))
    for window in windows[:, None]:
        (outputs,) = key.run(None, {"frame": window.numpy()})
        with torch.no_grad():
            expected = network(as_frames(student, window))
        torch.testing.assert_close(torch.from_numpy(outputs), expected, atol=1e-4, rtol=1e-4)
