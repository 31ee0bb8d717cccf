import numpy as np
import pytest
import torch

from vidistill.ops.clip_view import ClipView, cut_square


def test_the_middle_frame_of_every_few_is_taken() -> None:
    clips = torch.arange(12.0).view(1, 12, 1, 1, 1).expand(2, 12, 3, 4, 4)
    for num_frames, expected in ((12, list(range(12))), (6, [1, 3, 5, 7, 9, 11]), (4, [1, 4, 7, 10]), (1, [6])):
        seen = ClipView(num_frames=num_frames, crop=4, size=4)(clips)
        assert seen.shape == (2, num_frames, 3, 4, 4)
        assert seen[0, :, 0, 0, 0].tolist() == expected


def test_frames_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="a clip of 8 frames does not divide into 3 evenly spaced ones"):
        ClipView(num_frames=3, crop=4, size=4)(torch.zeros(1, 8, 3, 4, 4))


def test_half_the_size_is_the_mean_of_four_pixels() -> None:
    clips = torch.randn(2, 3, 3, 8, 8)
    seen = ClipView(num_frames=3, crop=8, size=4)(clips)
    blocks = clips.unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).mean(dim=(-1, -3))
    torch.testing.assert_close(seen, blocks)


def test_detail_is_lost_before_the_size_is_reached() -> None:
    frames = torch.randn(1, 3, 8, 8)
    seen = ClipView(num_frames=1, crop=8, size=8, detail=4).resize(frames)
    small = frames.unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).mean(dim=(-1, -3))
    assert seen.shape == frames.shape
    torch.testing.assert_close(seen[..., 0, 0], small[..., 0, 0])
    # half a pixel from a pixel's middle lies a quarter of the way to the next one
    torch.testing.assert_close(seen[..., 0, 1], 0.75 * small[..., 0, 0] + 0.25 * small[..., 0, 1])


def test_a_view_of_the_clips_own_size_changes_nothing() -> None:
    clips = torch.randn(1, 4, 3, 6, 6)
    assert torch.equal(ClipView(num_frames=4, crop=6, size=6)(clips), clips)


def test_a_frame_is_cut_to_its_centred_square() -> None:
    image = np.random.default_rng(0).integers(0, 255, (256, 344, 3), dtype=np.uint8)
    cut = ClipView(crop=224).cut(image)
    assert np.array_equal(cut, image[16:240, 60:284])
    assert np.array_equal(ClipView(crop=224).cut(image.transpose(1, 0, 2)), cut.transpose(1, 0, 2))


def test_squares_at_the_corners_and_averaged_down() -> None:
    image = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    assert np.array_equal(cut_square(image, share=0.5, place=(1.0, 0.0), size=6), image[6:, :6])
    assert np.array_equal(cut_square(image, share=1.0, place=(0.5, 1.0), size=12), image[:, 8:])
    means = image[:, 4:16].reshape(6, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.abs(cut_square(image, share=1.0, place=(0.5, 0.5), size=6) - means).max() <= 0.5
    assert cut_square(image[:1, :1], share=0.1, place=(0.5, 0.5), size=3).shape == (3, 3, 3)


@pytest.mark.parametrize("name", ["num_frames", "stride", "crop", "size"])
def test_nothing_of_a_view_is_below_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ClipView(**{name: 0})
