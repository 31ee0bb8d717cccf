import numpy as np
import torch

from vidistill.data.datasets.synthetic import synthetic
from vidistill.ops.flow import correspond, estimate_correspondence, estimate_flow, warp_bilinear


def test_a_uniform_shift_is_followed_and_its_border_is_not_visible() -> None:
    forward = np.zeros((6, 8, 2), dtype=np.float32)
    forward[..., 0] = 2
    flow = correspond(forward, -forward)
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    carried = flow.carry_back(labels)
    assert np.array_equal(carried[:, :6], labels[:, 2:])
    assert flow.visible[:, :6].all()
    assert not flow.visible[:, 6:].any()


def test_pixels_that_do_not_come_back_are_occluded() -> None:
    forward = np.zeros((4, 4, 2), dtype=np.float32)
    backward = np.zeros((4, 4, 2), dtype=np.float32)
    backward[1, 1] = (3, 0)
    assert not correspond(forward, backward).visible[1, 1]
    assert correspond(forward, backward).visible.sum() == 15


def test_the_estimate_is_near_the_exact_flow() -> None:
    sequence = synthetic(num_sequences=1, num_frames=3, size=(96, 128), seed=3).sequences[0]
    exact, visible = sequence.flow(0)
    found = estimate_flow(sequence.image(0), sequence.image(1))
    error = np.linalg.norm(found - exact, axis=-1)[visible]
    assert np.median(error) < 0.5
    flow = estimate_correspondence(sequence.image(0), sequence.image(1))
    same = flow.carry_back(sequence.labels(1)) == sequence.labels(0)
    assert same[flow.visible].mean() > 0.97


def test_tiny_frames_have_no_motion() -> None:
    frame = np.zeros((3, 5, 3), dtype=np.uint8)
    assert not estimate_flow(frame, frame).any()


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
