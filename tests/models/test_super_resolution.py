"""What every super-resolution network promises."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.methods.space_time import run_with_feature
from vidistill.models import MODELS
from vidistill.models.edvr import edvr
from vidistill.models.fastdvdnet import fastdvdnet
from vidistill.models.upscaling import SuperResolver, crop_like, pad_to_multiple
from vidistill.models.vespcn import vespcn, vsrnet
from vidistill.ops.resize import resize_bicubic
from vidistill.runtimes.measure import count_parameters

TINY = {
    "edvr": {"channels": 8, "feature_channels": 6, "groups": 2, "extraction_blocks": 1, "reconstruction_blocks": 1},
    "vsrnet": {"channels": 6, "feature_channels": 4},
    "vespcn": {"channels": 6, "feature_channels": 4},
    "fastdvdnet": {"channels": (4, 8, 12), "feature_channels": 4},
}
every_network = pytest.mark.parametrize("name", TINY)


def tiny(name: str, scale: int = 4) -> SuperResolver:
    network = MODELS[name](scale, **TINY[name]).eval()
    assert isinstance(network, SuperResolver)
    return network


def shaken(network: nn.Module) -> nn.Module:
    """Offsets, flows and statistics away from where they start."""
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


@every_network
@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_sizes_scales_and_batches(name: str, scale: int) -> None:
    network = shaken(tiny(name, scale))
    for size in ((8, 12), (9, 5), (1, 3)):
        windows = torch.rand(2, network.window, 3, *size)
        together = network(windows)
        assert together.shape == (2, 3, scale * size[0], scale * size[1])
        torch.testing.assert_close(network(windows[1:]), together[1:], atol=1e-4, rtol=1e-4)


@every_network
@pytest.mark.parametrize("scale", [2, 4])
def test_reach_is_how_far_a_gradient_goes(name: str, scale: int) -> None:
    """And no more than needed, so that tiles are no larger than they must be."""
    network = shaken(tiny(name, scale)).double()
    middle = 100
    windows = torch.rand(1, network.window, 3, 4, 2 * middle, dtype=torch.float64, requires_grad=True)
    frames = network(windows)
    farthest = 0
    for column in range(middle, middle + 4):  # a place in every cell of the strides
        part = frames[..., scale * column : scale * (column + 1)].sum()
        (gradient,) = torch.autograd.grad(part, windows, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2, 3)).nonzero()[:, 0]
        farthest = max(farthest, int(seen.max()) - column, column - int(seen.min()))
    assert network.reach - 8 <= farthest <= network.reach


@every_network
@torch.no_grad()
def test_the_feature_is_what_the_last_convolution_reads(name: str) -> None:
    """The result is the enlarged centre frame and what the module at `feature` makes of the feature."""
    network = shaken(tiny(name))
    seen: list[tuple[Tensor, Tensor]] = []
    module = network.get_submodule(network.feature)
    module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    windows = torch.rand(1, network.window, 3, 7, 9)
    result = network(windows)
    ((feature, residual),) = seen
    assert isinstance(module, nn.Conv2d)
    assert feature.shape[1] == network.feature_channels
    assert feature.shape[2] >= 28
    assert feature.shape[3] >= 36
    centre = windows[:, network.window // 2]
    enlarged = (
        F.interpolate(centre, size=(28, 36), mode="bilinear") if name == "edvr" else resize_bicubic(centre, scale=4)
    )
    torch.testing.assert_close(result, enlarged + residual[..., :28, :36], atol=1e-5, rtol=1e-5)


@every_network
@torch.no_grad()
def test_a_new_network_enlarges_the_centre_frame(name: str) -> None:
    network, windows = tiny(name, 3), torch.rand(1, 5 if name != "vespcn" else 3, 3, 6, 7)
    centre = windows[:, network.window // 2]
    bilinear, bicubic = F.interpolate(centre, size=(18, 21), mode="bilinear"), resize_bicubic(centre, scale=3)
    torch.testing.assert_close(network(windows), bilinear if name == "edvr" else bicubic, atol=1e-5, rtol=1e-5)


@every_network
@torch.no_grad()
def test_mixed_precision_rounds_the_residual_alone(name: str) -> None:
    """A new network, whose residual is zero, enlarges a frame wider than bfloat16 counts as precisely as ever."""
    network = tiny(name, 2)
    windows = torch.rand(1, network.window, 3, 4, 300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(windows)
    torch.testing.assert_close(mixed, network(windows), atol=1e-5, rtol=0)


@torch.no_grad()
def test_mixed_precision_keeps_motion_in_place() -> None:
    network = tiny("vespcn").get_submodule("motion")
    target, source = torch.rand(2, 1, 3, 8, 600)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(target, source), source, atol=1e-3, rtol=0)


@every_network
def test_every_frame_and_every_parameter_counts(name: str) -> None:
    network = shaken(tiny(name)).train()
    windows = torch.rand(1, network.window, 3, 8, 8, requires_grad=True)
    network(windows).square().mean().backward()
    assert windows.grad is not None
    assert (windows.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    assert [path for path, p in network.named_parameters() if p.grad is None] == []


@every_network
@torch.no_grad()
def test_a_new_network_keeps_the_scale_of_what_it_sees(name: str) -> None:
    """Of the networks as published: with PyTorch's own start VESPCN's last feature is a seventeenth of its frames."""
    torch.manual_seed(0)
    network = MODELS[name](4)
    windows = torch.rand(1, network.window, 3, 16, 16)
    feature = run_with_feature(network, windows)[1]
    assert 0.1 < float(feature.square().mean().sqrt() / windows.square().mean().sqrt()) < 10


@torch.no_grad()
def test_vsrnet_sees_frames_as_darker_and_brighter_than_grey() -> None:
    """Of frames from 0 on, layers that start without a bias see positive values alone."""
    network = tiny("vsrnet")
    assert not run_with_feature(network, torch.full((1, network.window, 3, 8, 8), 0.5))[1].any()
    dark, bright = (run_with_feature(network, torch.full((1, network.window, 3, 8, 8), v))[1] for v in (0.1, 0.9))
    assert dark.any()
    assert bright.any()
    assert not torch.allclose(dark, bright)


@torch.no_grad()
def test_fastdvdnet_sees_no_edges_where_there_is_nothing() -> None:
    """Trained on patches of 16 pixels with zeros beyond the edges, it was ten times as wrong inside larger frames."""
    network = shaken(tiny("fastdvdnet"))
    frames = torch.rand(1, 9, 1, 1).expand(1, 9, 8, 12)
    feature = network.get_submodule("first.frames")(frames)
    torch.testing.assert_close(feature, feature[..., :1, :1].expand_as(feature))
    assert {m.padding_mode for m in network.modules() if isinstance(m, nn.Conv2d)} == {"replicate"}


@every_network
def test_wrong_calls(name: str) -> None:
    with pytest.raises(ValueError, match="scale must be one of 2, 3, 4, got 5"):
        MODELS[name](5)
    network = tiny(name)
    with pytest.raises(ValueError, match=rf"windows must be \(B, {network.window}, 3, h, w\), got"):
        network(torch.rand(1, network.window - 1, 3, 8, 8))
    with pytest.raises(ValueError, match="windows must be"):
        network(torch.rand(1, 3, 8, 8))


class Padded(nn.Module):
    """The part of a network with strides that knows sizes: continued to a multiple, and cut back."""

    def forward(self, windows: Tensor) -> Tensor:
        frames = F.avg_pool2d(pad_to_multiple(windows, 4)[:, 0], 4)
        return windows[:, 0] + crop_like(F.interpolate(frames, scale_factor=4.0), windows)


@pytest.mark.parametrize("build", [Padded, lambda: tiny("vsrnet")], ids=["padded", "vsrnet"])
def test_exported_networks_take_every_size(build) -> None:
    """Those of the larger networks take half a minute to export; what could tie them to a size is tested alone."""
    network = build()
    dynamic = {3: torch.export.Dim.AUTO, 4: torch.export.Dim.AUTO}
    program = torch.export.export(network, (torch.rand(1, 5, 3, 10, 13),), dynamic_shapes=(dynamic,)).module()
    for size in ((12, 15), (11, 16), (12, 16), (9, 9)):
        windows = torch.rand(1, 5, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(windows), network(windows), atol=1e-5, rtol=1e-5)


def test_published_parameters() -> None:
    with torch.device("meta"):
        medium, large = edvr(), edvr(channels=128, reconstruction_blocks=40)
        fast = fastdvdnet()
    assert count_parameters(medium) / 1e6 == pytest.approx(3.3, rel=0.005)
    assert count_parameters(large) / 1e6 == pytest.approx(20.6, rel=0.005)
    # the denoiser's two blocks have 2.48 M, a noise map among their inputs and each an output of three channels
    blocks = count_parameters(fast.first) + count_parameters(fast.second) + 2 * count_parameters(fast.residual)
    assert blocks / 1e6 == pytest.approx(2.48, rel=0.005)


def test_layers_of_the_small_networks_by_hand() -> None:
    assert count_parameters(vsrnet()) == (15 * 81 * 64 + 64) + (64 * 25 * 32 + 32) + (32 * 25 * 3 + 3)
    network = vespcn()
    trunk = (9 * 9 * 24 + 24) + 6 * (24 * 9 * 24 + 24)
    upscale, output = 24 * 9 * 8 * 16 + 8 * 16, 8 * 9 * 3 + 3
    assert count_parameters(network) - count_parameters(network.motion) == trunk + upscale + output


@torch.no_grad()
def test_vespcn_starts_without_motion() -> None:
    """Flows are zero before training, and what they align is then the neighbour itself."""
    network = tiny("vespcn")
    target, source = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(network.get_submodule("motion")(target, source), source)


@torch.no_grad()
def test_edvr_does_not_care_which_neighbour_is_which_before_fusion() -> None:
    """Each frame is aligned to the centre alone: exchanging two neighbours exchanges their aligned features."""
    network = shaken(tiny("edvr"))
    windows = torch.rand(1, 5, 3, 8, 8)
    order = [4, 1, 2, 3, 0]
    torch.testing.assert_close(network._aligned(windows[:, order]), network._aligned(windows)[:, order])


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="groups must divide the 8 channels, got 3 deformable groups"):
        edvr(channels=8, groups=3)
    with pytest.raises(ValueError, match=r"window must be odd and at least 1, .* got 4"):
        vsrnet(window=4)
    with pytest.raises(ValueError, match="window must be at least 3, as motion compensation needs neighbours, got 1"):
        vespcn(window=1)
