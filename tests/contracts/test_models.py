"""What every network promises, over the whole registry."""

import pytest
import torch

from vidistill.errors import UserError
from vidistill.models import MODELS, build_network
from vidistill.ops.macs import count_macs

# GMAC of the convolutions alone at 1024×2048, 19 classes: from the authors' networks
PUBLISHED = {"ddrnet_23_slim": 36.28, "ddrnet_23": 143.06, "ddrnet_39": 281.12, "hrnet_w18_small": 76.86}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    with torch.device("meta"):
        network = MODELS[name](num_classes=19).eval()
        frame = torch.empty(1, 3, 1024, 2048)
    assert count_macs(network, frame) / 1e9 == pytest.approx(PUBLISHED[name], rel=2e-4)


@pytest.mark.parametrize("size", [(64, 64), (97, 130), (33, 65)])
@torch.no_grad()
def test_odd_sizes_and_batches(size) -> None:
    network = MODELS["ddrnet_23_slim"](num_classes=5).eval()
    frames = torch.randn(2, 3, *size)
    together = network(frames)
    assert together.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))
    gap = (network(frames[1:]) - together[1:]).abs().max() / together.abs().max()
    assert gap.item() < 1e-3, "rounding alone, which other batch sizes do otherwise"


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown network 'ddrnet_23slim'.*ddrnet_23_slim"):
        build_network("ddrnet_23slim")
    with pytest.raises(UserError, match=r"unknown library 'torchvison'.*torchvision"):
        build_network("x", "torchvison")
    with pytest.raises(UserError, match="torchvision has no model 'lraspp'"):
        build_network("lraspp", "torchvision")
    with pytest.raises(UserError, match="cannot be built"):
        build_network("ddrnet_39", options={"classes": 3})
