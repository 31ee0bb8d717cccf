import torch

from vidistill.ops.flow import warp_bilinear


def test_whole_and_half_pixels_by_hand() -> None:
    frames = torch.tensor([[[[0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0]]]])
    flow = torch.zeros(1, 2, 2, 4)
    torch.testing.assert_close(warp_bilinear(frames, flow), frames)
    flow[:, 0] = 1  # x: what is one pixel to the right; the border goes on
    torch.testing.assert_close(
        warp_bilinear(frames, flow), torch.tensor([[[[1.0, 2.0, 3.0, 3.0], [11.0, 12.0, 13.0, 13.0]]]])
    )
    flow = torch.zeros(1, 2, 2, 4)
    flow[:, 1, 0] = 0.5  # y, in the first row only
    torch.testing.assert_close(
        warp_bilinear(frames, flow), torch.tensor([[[[5.0, 6.0, 7.0, 8.0], [10.0, 11.0, 12.0, 13.0]]]])
    )


def test_places_are_exact_whatever_the_precision_of_the_flow() -> None:
    """In bfloat16 the columns of a wide frame are more than a pixel apart."""
    frames = torch.rand(1, 3, 4, 700)
    flow = torch.zeros(1, 2, 4, 700, dtype=torch.bfloat16)
    flow[:, 0] = 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp_bilinear(frames, flow)
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped[..., :-3], frames[..., 3:], atol=1e-3, rtol=0)
    half = warp_bilinear(frames.bfloat16(), flow)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half[..., :-3].float(), frames[..., 3:], atol=1e-2, rtol=0)
