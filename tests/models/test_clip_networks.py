"""What every clip network promises, and what each of the published ones does."""

import copy
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models import build_network
from vidistill.models.clips import smallest_size, to_clip_features
from vidistill.models.libraries import import_torchvision
from vidistill.models.segment_network import TemporalShiftNetwork, temporal_shift, tsm, tsn
from vidistill.models.slow_only import slow_only
from vidistill.models.video_swin import video_swin_b, video_swin_s, video_swin_t
from vidistill.ops.macs import count_macs
from vidistill.ops.normalise import Normalisation
from vidistill.runtimes.measure import count_parameters

TINY = "test_resnet"  # timm's smallest, with basic blocks and a bottleneck
K = 7
VIDEOMAE = {"image_size": 32, "num_frames": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tsn": lambda: tsn(K, backbone=TINY),
    "tsn_mobilenet": lambda: tsn(K, backbone="mobilenetv2_035"),
    "tsn_mobilenet_v3": lambda: tsn(K, backbone="mobilenetv3_small_050"),
    "tsm": lambda: tsm(K, backbone=TINY),
    "tsm_causal_mobilenet": lambda: tsm(K, backbone="mobilenetv2_035", causal=True),
    "slow_only": lambda: slow_only(K, depth=18),
    "video_swin_t": lambda: video_swin_t(K),
    "r3d_18": lambda: build_network("r3d_18", "torchvision", {"num_classes": K}),
    "mvit_v2_s": lambda: build_network("mvit_v2_s", "torchvision", {"num_classes": K}),
    "videomae": lambda: build_network("videomae", "transformers", {"num_classes": K, **VIDEOMAE}),
}


def lively(network: nn.Module) -> nn.Module:
    """The network for evaluation, with weights under which every branch and the classifier tell."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):  # timm starts each block's last norm at 0
            nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(network.get_submodule(network.classifier).weight)
    return network.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return lively(NETWORKS[request.param]())


def call_with_stages(network: nn.Module, clips: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits, and what each declared stage returned, once."""
    found: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(
            lambda _, __, output, path=path: found.update({path: output.clone()})
        )
        for path in network.stages
    ]
    with torch.no_grad():
        logits = network(clips)
    for hook in hooks:
        hook.remove()
    return logits, [found[path] for path in network.stages]


def test_logits_stages_and_classifier(network: nn.Module) -> None:
    clips = torch.randn(2, 4, 3, 32, 32)
    logits, stages = call_with_stages(network, clips)
    assert logits.shape == (2, K)
    assert logits.isfinite().all()
    assert network.get_submodule(network.classifier).out_features == K
    maps = [to_clip_features(stage, network.feature_layout, num_clips=2) for stage in stages]
    assert all(m.dim() == 5 and m.shape[0] == 2 for m in maps)
    sizes = [m.shape[-1] for m in maps]
    assert sizes == sorted(sizes, reverse=True)


def test_clips_of_a_batch_do_not_meet(network: nn.Module) -> None:
    clips = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(clips[1:]), network(clips)[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["tsn", "tsm", "slow_only", "video_swin_t", "mvit_v2_s"])
def test_any_length_and_size(name: str) -> None:
    network = lively(NETWORKS[name]())
    for shape in [(1, 32, 32), (3, 33, 47)]:
        with torch.no_grad():
            assert network(torch.randn(1, shape[0], 3, *shape[1:])).shape == (1, K)


@pytest.mark.parametrize("name", ["tsn", "tsn_mobilenet", "tsm", "slow_only", "video_swin_t", "r3d_18"])
def test_the_last_stage_is_what_is_pooled(name: str) -> None:
    network = lively(NETWORKS[name]())
    logits, stages = call_with_stages(network, torch.randn(2, 4, 3, 64, 64))
    pooled = to_clip_features(stages[-1], network.feature_layout, num_clips=2).mean(dim=(1, 3, 4))
    torch.testing.assert_close(network.get_submodule(network.classifier)(pooled), logits, atol=1e-5, rtol=1e-4)


def test_a_copy_shifts_for_itself() -> None:
    network = lively(tsm(K, backbone=TINY))
    clips = torch.randn(1, 3, 3, 32, 32)
    with torch.no_grad():
        expected = network(clips)
        twin = copy.deepcopy(network)
        assert twin.tape is not network.tape
        assert torch.equal(twin(clips), expected)


def test_to_clip_features_by_hand() -> None:
    wanted = torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)  # B T C h w
    first, last = torch.empty(2, 4, 3, 5, 6), torch.empty(2, 3, 5, 6, 4)
    frames = torch.empty(6, 4, 5, 6)
    for b in range(2):
        for t in range(3):
            for c in range(4):
                frames[3 * b + t, c] = first[b, c, t] = last[b, t, :, :, c] = wanted[b, t, c]
    layouts = [("frames", frames), ("channels_first", first), ("channels_last", last)]
    for layout, features in layouts:
        assert torch.equal(to_clip_features(features, layout, num_clips=2), wanted.float())
    with pytest.raises(ValueError, match=r"feature_layout must be one of frames, .* got 'tokens'"):
        to_clip_features(frames, "tokens", num_clips=2)
    for layout, features in layouts:
        with pytest.raises(ValueError, match="features must be of 4 clips"):
            to_clip_features(features, layout, num_clips=4)


@torch.no_grad()
def test_frames_of_tsn_are_independent() -> None:
    network = lively(tsn(K, backbone=TINY))
    clips = torch.randn(2, 5, 3, 32, 32)
    torch.testing.assert_close(network(clips[:, torch.randperm(5)]), network(clips))
    torch.testing.assert_close(network(clips), torch.stack([network(clips[:, t : t + 1]) for t in range(5)]).mean(0))
    shifting = lively(tsm(K, backbone=TINY))
    assert not torch.allclose(shifting(clips.flip(1)), shifting(clips))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 3), st.booleans())
def test_shift_equals_a_plain_loop(num_frames: int, channels: int, num_shifted: int, causal: bool) -> None:
    num_shifted = min(num_shifted, channels // 2)
    features = torch.randn(2, num_frames, channels, 2, 3)
    expected = torch.zeros_like(features)
    for t in range(num_frames):
        for c in range(channels):
            first, second = c < num_shifted, num_shifted <= c < 2 * num_shifted
            step = (-1 if first else 0) if causal else (1 if first else -1 if second else 0)
            if 0 <= t + step < num_frames:
                expected[:, t, c] = features[:, t + step, c]
    assert torch.equal(temporal_shift(features, num_shifted=num_shifted, causal=causal), expected)


@torch.no_grad()
def test_the_number_of_frames_stays_free_in_an_export() -> None:
    network = lively(tsm(K, backbone=TINY))
    free = {0: torch.export.Dim("clips"), 1: torch.export.Dim("frames")}
    program = torch.export.export(network, (torch.randn(2, 4, 3, 32, 32),), dynamic_shapes=(free,))
    clips = torch.randn(3, 7, 3, 32, 32)
    torch.testing.assert_close(program.module()(clips), network(clips), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("causal", "shares"), [(False, 2), (True, 1)])
@torch.no_grad()
def test_one_frame_of_tsm_is_tsn_without_the_shifted_channels(causal: bool, shares: int) -> None:
    shifting = lively(tsm(K, backbone=TINY, causal=causal))
    plain = tsn(K, backbone=TINY).eval()
    plain.load_state_dict(shifting.state_dict())
    for path in shifting.shifted:
        weight = plain.get_submodule(path).weight
        weight[:, : shares * (weight.shape[1] // 8)] = 0
    clips = torch.randn(2, 1, 3, 48, 48)
    torch.testing.assert_close(shifting(clips), plain(clips))


def test_where_tsm_shifts() -> None:
    with torch.device("meta"):
        assert tsm(2, backbone="resnet18").shifted == tuple(
            f"backbone.layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in (0, 1)
        )
        # of MobileNetV2's 17 blocks the 10 that keep stride and width add their input
        shifted = tsm(2, backbone="mobilenetv2_100").shifted
    assert len(shifted) == 10
    assert all(path.endswith("conv_pw") for path in shifted)
    with pytest.raises(ValueError, match="no residual blocks"):
        tsm(2, backbone="test_convnext")
    with pytest.raises(ValueError, match="shift must be at least 2 where causal is False, got 1"):
        tsm(2, backbone=TINY, shift=1)


@pytest.mark.parametrize("backbone", [TINY, "mobilenetv2_035"])
@torch.no_grad()
def test_causal_stream_equals_clip(backbone: str) -> None:
    network = lively(tsm(K, backbone=backbone, causal=True))
    clips = torch.randn(2, 4, 3, 32, 32)
    state, logits = None, []
    for frame in clips.unbind(1):
        one, state = network.step(frame, state)
        logits.append(one)
    torch.testing.assert_close(torch.stack(logits).mean(0), network(clips), atol=1e-5, rtol=1e-4)
    assert set(state) == set(network.shifted)
    assert all(len(tensor) == 2 for tensor in state.values())
    assert network.tape.read is None
    assert network.tape.written is None
    # the past matters: alone, the last frame says something else
    assert not torch.allclose(network.step(clips[:, -1])[0], logits[-1])
    # two streams are one batch
    parts = [network.step(clips[i : i + 1, 0], {k: v[i : i + 1] for k, v in state.items()})[0] for i in range(2)]
    torch.testing.assert_close(torch.cat(parts), network.step(clips[:, 0], state)[0], atol=1e-5, rtol=1e-4)


def test_what_cannot_stream() -> None:
    with pytest.raises(UserError, match="causal: true"):
        tsm(K, backbone=TINY).step(torch.randn(1, 3, 32, 32))
    network = tsm(K, backbone=TINY, causal=True)
    with pytest.raises(UserError, match="of another network"):
        network.step(torch.randn(1, 3, 32, 32), {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="call the network"):
        network.backbone(torch.randn(2, 3, 32, 32))


class Step(nn.Module):
    def __init__(self, network: TemporalShiftNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.network.step(frame, state)


def test_one_step_exports(tmp_path: Path) -> None:
    network = lively(tsm(K, backbone=TINY, causal=True))
    frames = torch.randn(2, 1, 3, 32, 32)
    with torch.no_grad():
        first, state = network.step(frames[0])
        expected, after = network.step(frames[1], state)
    start = torch.export.export(Step(network), (frames[0],)).module()
    torch.testing.assert_close(start(frames[0])[0], first)
    program = torch.export.export(Step(network), (frames[0],), {"state": state})
    found, left = program.module()(frames[1], state=state)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(left, after)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    frame, *slots = [i.name for i in session.get_inputs()]
    held = {frame: frames[1].numpy()} | {s: t.numpy() for s, t in zip(slots, state.values(), strict=True)}
    outputs = [torch.from_numpy(output) for output in session.run(None, held)]
    torch.testing.assert_close(outputs, [expected, *after.values()], atol=1e-5, rtol=1e-4)


def test_published_cost_of_resnet50_per_frame() -> None:
    with torch.device("meta"):
        network = tsn(1000).eval()
        for size, gmacs in [(224, 4.09), (112, 1.08)]:
            assert count_macs(network, torch.empty(1, 2, 3, size, size)) / 2e9 == pytest.approx(gmacs, rel=0.01)


def test_the_shift_costs_nothing() -> None:
    with torch.device("meta"):
        clip = torch.empty(2, 3, 3, 64, 64)
        assert count_macs(tsm(K, backbone=TINY), clip) == count_macs(tsn(K, backbone=TINY), clip)


def test_slow_only_as_published() -> None:
    with torch.device("meta"):
        network = slow_only(400).eval()
        _, stages = call_with_stages(network, torch.empty(1, 8, 3, 224, 224))
    assert count_parameters(network) / 1e6 == pytest.approx(32.45, rel=0.01)
    kernels = [network.get_submodule(f"backbone.layer{i}")[0].conv1.kernel_size for i in (1, 2, 3, 4)]
    assert kernels == [(1, 1, 1), (1, 1, 1), (3, 1, 1), (3, 1, 1)]
    assert network.backbone.conv1.kernel_size == (1, 7, 7)
    # Table 1 of the paper: time is never strided
    assert [tuple(s.shape) for s in stages] == [
        (1, 256, 8, 56, 56), (1, 512, 8, 28, 28), (1, 1024, 8, 14, 14), (1, 2048, 8, 7, 7),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="depth must be one of 18, 50, got 34"):
        slow_only(2, depth=34)


# torchvision's own figures for 400 classes
@pytest.mark.parametrize(
    ("builder", "parameters"), [(video_swin_t, 28158070), (video_swin_s, 49816678), (video_swin_b, 88048984)]
)
def test_parameters_of_video_swin(builder: Callable[[int], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(builder(400)) == parameters


def test_dropout_and_the_classifier_start_as_published() -> None:
    network = tsn(400, backbone=TINY)
    assert network.dropout.p == 0.5
    assert network.head.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not network.head.bias.any()


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b"])
def test_torchvision_networks_answer_as_they_are(name: str) -> None:
    with torch.device("meta"):
        network = build_network(name, "torchvision", {"num_classes": K}).eval()
        logits, stages = call_with_stages(network, torch.empty(1, 16, 3, 224, 224))
    assert logits.shape == (1, K)
    maps = [to_clip_features(stage, network.feature_layout, num_clips=1) for stage in stages]
    assert tuple(maps[-1].shape[-2:]) in [(7, 7), (14, 14)]  # strides of 32, and of 16 for VideoResNets


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b", "mvit_v2_s"])
def test_torchvision_networks_say_how_their_weights_want_frames(name: str) -> None:
    with torch.device("meta"):
        found = build_network(name, "torchvision", {"num_classes": K}).normalisation
    published = import_torchvision().models.get_model_weights(name).DEFAULT.transforms()
    assert found == Normalisation(tuple(published.mean), tuple(published.std))


@torch.no_grad()
def test_mvit_is_torchvisions_own() -> None:
    network = build_network("mvit_v2_s", "torchvision", {"num_classes": K}).eval()
    network.backbone.pos_encoding.temporal_size = 2  # torchvision's forward takes the size that it was built for
    network.backbone.pos_encoding.spatial_size = (8, 8)
    clips = torch.randn(1, 4, 3, 32, 32)
    torch.testing.assert_close(network(clips), network.backbone(clips.transpose(1, 2)))


@torch.no_grad()
def test_videomae_is_transformers_own() -> None:
    network = build_network("videomae", "transformers", {"num_classes": K, **VIDEOMAE}).eval()
    clips = torch.randn(2, 4, 3, 32, 32)
    torch.testing.assert_close(network(clips), network.backbone(clips).logits)


def test_a_clip_too_small_names_the_smallest() -> None:
    network = tsn(K, backbone=TINY).eval()
    unpadded = [nn.Conv2d(3, 3, 3, stride=2), nn.Conv2d(3, 3, 3, stride=2), nn.Conv2d(3, 96, 3, stride=2)]
    assert smallest_size(network) == 1  # every layer of a ResNet pads
    network.backbone = nn.Sequential(*unpadded, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert smallest_size(network) == 15  # 1 cell is of 3, 3 of 7, 7 of 15
    assert network(torch.randn(1, 2, 3, 15, 15)).shape == (1, K)
    with pytest.raises(UserError, match=r"clip of 20x14 is too small .* 2 frames is 15x15"):
        network(torch.randn(1, 2, 3, 14, 20))
    network.backbone = nn.Conv2d(4, 3, 1)
    with pytest.raises(UserError, match="no clip of 8 frames at any size"):
        smallest_size(network)
    with pytest.raises(UserError, match="no clip of 8 frames at any size"):
        network(torch.randn(1, 8, 3, 32, 32))
    fixed = build_network("videomae", "transformers", {"num_classes": K, **VIDEOMAE})
    assert smallest_size(fixed) == 32
    with pytest.raises(UserError, match=r"takes clips of 4 frames of 32x32 only, got 8 of 64x64; set its view"):
        fixed(torch.randn(1, 8, 3, 64, 64))


def test_wrong_names_and_shapes() -> None:
    with pytest.raises(UserError, match=r"timm has no model 'resnet5'.*resnet5"):
        build_network("tsn", options={"num_classes": 2, "backbone": "resnet5"})
    with pytest.raises(UserError, match=r"gives no feature map .* \(7, 7, 768\)"):
        build_network("tsn", options={"num_classes": 2, "backbone": "swin_tiny_patch4_window7_224"})
    with pytest.raises(ValueError, match=r"clips must be \(B, T, C, H, W\), got \(2, 3, 32, 32\)"):
        tsn(2, backbone=TINY)(torch.randn(2, 3, 32, 32))
