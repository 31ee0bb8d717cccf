"""Published checkpoints load by their own names, and nothing else does."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models import build_network
from vidistill.models.backbone_weights import load_backbone
from vidistill.models.libraries import import_torchvision, timm_network
from vidistill.models.segment_network import tsm, tsn
from vidistill.models.slow_only import slow_only
from vidistill.models.video_swin import video_swin_t

HEAD = ["head.bias", "head.weight"]


def randomised(network: nn.Module) -> nn.Module:
    """The network for evaluation, with statistics and affine parameters under which no two layers are alike."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return network.eval()


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@torch.no_grad()
def test_torchvision_image_networks_answer_alike(name: str, tmp_path: Path) -> None:
    source = randomised(import_torchvision().models.get_model(name, weights=None))
    path = saved(source.state_dict(), tmp_path / "weights.pth")
    backbone = {"resnet18": "resnet18", "mobilenet_v2": "mobilenetv2_100"}[name]
    frame = torch.randn(1, 3, 64, 64)
    same = tsn(1000, backbone=backbone).eval()
    assert load_backbone(same, path) == []
    torch.testing.assert_close(same(frame[:, None]), source(frame), atol=1e-5, rtol=1e-4)
    other = tsm(5, backbone=backbone)
    assert load_backbone(other, path) == HEAD
    assert other.head.out_features == 5


@torch.no_grad()
def test_timm_checkpoints_in_safetensors_and_in_wrappers(tmp_path: Path) -> None:
    source = randomised(timm_network("test_resnet", num_classes=7))
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in source.state_dict().items()}}
    frame = torch.randn(1, 3, 32, 32)
    for path in (tmp_path / "weights.safetensors", saved(wrapped, tmp_path / "weights.pth")):
        network = tsn(7, backbone="test_resnet").eval()
        assert load_backbone(network, path) == []
        torch.testing.assert_close(network(frame[:, None]), source(frame))


@torch.no_grad()
def test_a_backbone_inside_of_another_network(tmp_path: Path) -> None:
    source = randomised(timm_network("test_resnet", num_classes=7))
    inner = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}

    def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {prefix + name: tensor for name, tensor in tensors.items()}

    lightning = {"state_dict": under("model.backbone.", inner) | {"model.head.weight": torch.ones(3)}, "epoch": 3}
    network = tsn(7, backbone="test_resnet")
    assert load_backbone(network, saved(lightning, tmp_path / "a.ckpt")) == HEAD
    assert torch.equal(network.backbone.conv1[0].weight, source.conv1[0].weight)
    keys = {name: tensor + 1 for name, tensor in inner.items()}
    two = {"state_dict": under("module.encoder_q.", inner) | under("module.encoder_k.", keys)}
    with pytest.raises(UserError, match=r"several weights that fit, '.*encoder_k' and '.*encoder_q'; save the wanted"):
        load_backbone(network, saved(two, tmp_path / "b.pth"))


@torch.no_grad()
def test_inflated_kernels_see_a_still_clip_as_its_frame(tmp_path: Path) -> None:
    source = randomised(import_torchvision().models.resnet18(weights=None))
    network = slow_only(1000, depth=18).eval()
    assert load_backbone(network, saved(source.state_dict(), tmp_path / "weights.pth")) == []
    frame = torch.randn(1, 3, 64, 64)
    maps: list[Tensor] = []
    network.backbone.layer4.register_forward_hook(lambda _, __, output: maps.append(output))
    network(frame[:, None].expand(-1, 9, -1, -1, -1))
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        frame = source.get_submodule(name)(frame)
    # four convolutions look a frame each way, zeros beyond the clip: only the middle frame sees none
    torch.testing.assert_close(maps[0][:, :, 4], frame, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_torchvision_video_networks(tmp_path: Path) -> None:
    clips = torch.randn(1, 2, 3, 32, 32)
    source = import_torchvision().models.video.swin3d_t(weights=None, num_classes=6).eval()
    path = saved(source.state_dict(), tmp_path / "swin.pth")
    swin = video_swin_t(6).eval()
    assert load_backbone(swin, path) == []
    torch.testing.assert_close(swin(clips), source(clips.transpose(1, 2)))
    assert load_backbone(video_swin_t(9), path) == HEAD
    source = import_torchvision().models.video.mc3_18(weights=None).eval()
    adapted = build_network("mc3_18", "torchvision", {"num_classes": 6})
    path = saved(source.state_dict(), tmp_path / "mc3.pth")
    assert load_backbone(adapted, path) == ["backbone.fc.bias", "backbone.fc.weight"]
    torch.testing.assert_close(adapted.backbone.layer4.state_dict(), source.layer4.state_dict())


def efficientnet_names() -> list[str]:
    """The names in the package's file, in its order, by the rule that its block list follows."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def layers(prefix: str, *pairs: tuple[str, str]) -> list[str]:
        return [n for conv, bn in pairs for n in (f"{prefix}{conv}.weight", *(f"{prefix}{bn}.{kind}" for kind in norm))]

    names = layers("", ("_conv_stem", "_bn0"))
    tail = (("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for block in range(16):
        names += layers(f"_blocks.{block}.", *((("_expand_conv", "_bn0"),) if block else ()), *tail)
    return [*names, *layers("", ("_conv_head", "_bn1")), "_fc.weight", "_fc.bias"]


@torch.no_grad()
def test_efficientnet_lite0_goes_to_the_form_of_tensorflow(tmp_path: Path) -> None:
    source = randomised(timm_network("tf_efficientnet_lite0"))
    tensors = dict(zip(efficientnet_names(), source.state_dict().values(), strict=True))
    path = saved(tensors, tmp_path / "lite0.pth")
    network = tsn(1000, backbone="tf_efficientnet_lite0").eval()
    assert load_backbone(network, path) == []
    frame = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network(frame[:, None]), source(frame))
    with pytest.raises(UserError, match="TensorFlow's weights; give the network backbone: tf_efficientnet_lite0"):
        load_backbone(tsn(1000, backbone="efficientnet_lite0"), path)


def test_what_does_not_fit(tmp_path: Path) -> None:
    network = tsn(3, backbone="test_resnet")
    plain = timm_network("test_resnet").state_dict()
    path = tmp_path / "weights.pth"
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensors, complaint in [
        (plain | {"layer9.weight": torch.zeros(1)}, r"has unknown 'backbone.layer9.weight'"),
        ({name: tensor for name, tensor in plain.items() if "layer4" not in name}, r"lacks 'backbone.layer4"),
        (plain | {"layer1.0.conv1.weight": torch.zeros(2, 2, 3, 3)}, r"'backbone.layer1.0.conv1.weight' is \(2, 2, 3"),
        ({"epoch": 3}, "holds no weights by name"),
    ]:
        with pytest.raises(UserError, match=complaint):
            load_backbone(network, saved(tensors, path))
    torch.save(nn.Linear(1, 1), path)  # a pickled module would run code
    with pytest.raises(UserError, match=r"an object of a program, torch.nn.modules.linear.Linear"):
        load_backbone(network, path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_backbone(network, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="file not found"):
        load_backbone(network, tmp_path / "b.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
