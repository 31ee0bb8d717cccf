from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidistill.models.libraries import import_torchvision
from vidistill.ops.region_pooling import pool_regions

import_torchvision()


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    """torchvision compiles its pooling where its own operators are missing, which takes a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def pyramid(generator: torch.Generator, strides: list[int], size: int = 64, batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, 3, size // s, size // s, generator=generator, dtype=torch.float64) for s in strides]


def test_a_flat_level_gives_its_value_and_a_ramp_its_place() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)  # the pixel at column x holds x
    pooled = pool_regions([ramp], torch.tensor([[[16.0, 8, 72, 64]]]), strides=[4], output_size=7, samples=2)
    assert pooled.shape == (1, 1, 1, 7, 7)
    # columns 4 to 18 of the level in bins of 2, their samples' mean at the middle: 5, 7, …; 14.5 and 15.5, which the
    # edge holds at 15; 16.5 and 17.5, which are beyond it
    assert pooled[0, 0, 0, 0].tolist() == pytest.approx([5, 7, 9, 11, 13, 14.75, 0])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([[4], [4, 8], [4, 8, 16, 32]]))
def test_it_is_torchvisions(seed: int, strides: list[int]) -> None:
    from torchvision.ops.poolers import MultiScaleRoIAlign

    generator = torch.Generator().manual_seed(seed)
    size = 64
    features = pyramid(generator, strides)
    corner = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * size * 0.8
    extent = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * size
    boxes = torch.cat([corner, (corner + extent).clamp(max=size)], dim=2)
    names = [str(i) for i in range(len(strides))]
    pooler = MultiScaleRoIAlign(names, 7, 2)
    expected = pooler(dict(zip(names, features, strict=True)), list(boxes), [(size, size)] * 2)
    found = pool_regions(features, boxes, strides=strides)
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


def test_every_level_is_met() -> None:
    from torchvision.ops.poolers import MultiScaleRoIAlign

    strides, size = [4, 8, 16, 32], 1024
    features = pyramid(torch.Generator().manual_seed(0), strides, size, batch=1)
    sides = torch.tensor([5.0, 60, 112, 223, 225, 400, 500, 900, 1020], dtype=torch.float64)
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=1)[None].double()
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = pooler({str(i): f for i, f in enumerate(features)}, list(boxes), [(size, size)])
    torch.testing.assert_close(pool_regions(features, boxes, strides=strides)[0], expected, atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_the_features_alone() -> None:
    features = [f.requires_grad_() for f in pyramid(torch.Generator().manual_seed(1), [4, 8], size=16, batch=1)]
    boxes = torch.tensor([[[1.0, 2, 13, 11]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *f: pool_regions(f, boxes.detach(), strides=[4, 8], output_size=2), features)
    pool_regions(features, boxes, strides=[4, 8]).sum().backward()
    assert boxes.grad is None


def test_it_has_a_shape_without_values() -> None:
    features = [torch.empty(2, 8, 16, 16, device="meta"), torch.empty(2, 8, 8, 8, device="meta")]
    boxes = torch.empty(2, 5, 4, device="meta")
    assert pool_regions(features, boxes, strides=[4, 8]).shape == (2, 5, 8, 7, 7)


def test_levels_of_one_stride_are_pooled_as_torchvisions() -> None:
    from torchvision.ops.poolers import MultiScaleRoIAlign

    features = pyramid(torch.Generator().manual_seed(0), [32, 32], 1024, batch=1)  # as its Faster R-CNN on MobileNet
    boxes = torch.tensor([[[0.0, 0, 400, 400], [0, 0, 1010, 1010]]], dtype=torch.float64)
    expected = MultiScaleRoIAlign(["0", "1"], 7, 2)(
        {str(i): f for i, f in enumerate(features)}, list(boxes), [(1024, 1024)]
    )
    found = pool_regions(features, boxes, strides=[32, 32])
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


def test_exported_it_is_the_same_without_a_loop_over_bins() -> None:
    class Pooling(torch.nn.Module):
        def forward(self, feature: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            return pool_regions([feature], boxes, strides=[4])

    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 3, 16, 16, generator=generator)
    corner = torch.rand(2, 5, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 20], dim=2)
    exported = torch.export.export(Pooling(), (feature, boxes))
    assert "embedding_bag" not in exported.graph_module.code
    torch.testing.assert_close(exported.module()(feature, boxes), Pooling()(feature, boxes))
