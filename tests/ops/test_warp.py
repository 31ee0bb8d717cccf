import torch

from vidistill.ops.warp import warp_bilinear


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
