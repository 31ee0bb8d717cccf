"""Tiles against the whole frame, on a network whose receptive field is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vidistill.errors import UserError
from vidistill.ops.tiles import run_in_tiles

RADIUS = 3  # of three 3×3 convolutions


class Enlarger(nn.Module):
    """(B, T, 3, h, w) → (B, 3, 2h, 2w)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.layers(windows.flatten(1, 2))


@settings(max_examples=25)
@given(height=st.integers(1, 30), width=st.integers(1, 30), tile=st.integers(1, 40))
@torch.no_grad()
def test_tiles_are_the_whole(height: int, width: int, tile: int) -> None:
    if -(-height // tile) * -(-width // tile) > 60:
        return
    network, windows = Enlarger(), torch.rand(1, 2, 3, height, width)
    tiled = run_in_tiles(network, windows, tile=tile, overlap=RADIUS)
    torch.testing.assert_close(tiled, network(windows), atol=1e-5, rtol=1e-5)


class Strided(nn.Module):
    """(B, T, 3, h, w) → (B, 3, 2h, 2w) through a quarter of the size, frames continued to a multiple of 4.

    A cell of 4 pixels depends on those from 3 before its first one to its last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3 * 64, 3, stride=2, padding=1),
            nn.PixelShuffle(8),
        )  # fmt: skip

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        height, width = windows.shape[-2:]
        padded = nn.functional.pad(windows.flatten(1, 2), (0, -width % 4, 0, -height % 4), mode="replicate")
        return self.layers(padded)[..., : 2 * height, : 2 * width]


@settings(max_examples=15)
@given(height=st.integers(1, 30), width=st.integers(1, 30), tile=st.sampled_from([4, 8, 12, 20]))
@torch.no_grad()
def test_tiles_of_a_network_with_strides_are_the_whole(height: int, width: int, tile: int) -> None:
    network, windows = Strided(), torch.rand(1, 2, 3, height, width)
    tiled = run_in_tiles(network, windows, tile=tile, overlap=4)
    torch.testing.assert_close(tiled, network(windows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("tile", "overlap"), [(10, 4), (8, 6), (8, 0)])
@torch.no_grad()
def test_tiles_off_the_strides_are_not(tile: int, overlap: int) -> None:
    network, windows = Strided(), torch.rand(1, 2, 3, 24, 24)
    tiled = run_in_tiles(network, windows, tile=tile, overlap=overlap)
    assert (tiled - network(windows)).abs().max() > 1e-3


@torch.no_grad()
def test_too_little_overlap_shows_at_the_seams_only() -> None:
    network, windows = Enlarger(), torch.rand(1, 2, 3, 24, 24)
    gap = (run_in_tiles(network, windows, tile=12, overlap=0) - network(windows)).abs().amax(dim=(0, 1))
    assert gap[:18, :18].max() < 1e-5
    assert gap[20:28].max() > 1e-3


@torch.no_grad()
def test_no_tile_is_larger_than_asked_for() -> None:
    seen: list[torch.Size] = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.shape)
        return windows[:, 0]

    windows = torch.rand(1, 2, 3, 20, 31)
    assert torch.equal(run_in_tiles(network, windows, tile=8, overlap=2), windows[:, 0])
    assert len(seen) == 3 * 4
    assert max(max(shape[-2:]) for shape in seen) <= 12


def test_wrong_tiles() -> None:
    with pytest.raises(ValueError, match="tile must be at least 1 and overlap at least 0, got 0 and 2"):
        run_in_tiles(Enlarger(), torch.rand(1, 2, 3, 8, 8), tile=0, overlap=2)
    with pytest.raises(ValueError, match="windows must have pixels"):
        run_in_tiles(Enlarger(), torch.rand(1, 2, 3, 0, 8), tile=4, overlap=2)
    with pytest.raises(UserError, match=r"the network turns 6x6 pixels into 13x12, .* leave --tile out"):
        run_in_tiles(lambda windows: torch.zeros(1, 3, 12, 13), torch.rand(1, 2, 3, 8, 8), tile=4, overlap=2)
