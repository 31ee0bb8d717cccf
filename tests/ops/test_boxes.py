import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidistill.models.libraries import import_torchvision
from vidistill.ops.boxes import clip_boxes, decode_boxes, encode_boxes, match_anchors, match_points, overlaps, suppress

import_torchvision()

SEEDS = st.integers(0, 2**31)


def random_boxes(count: int, generator: torch.Generator, extent: float = 100.0) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * extent / 2], dim=1)


def test_overlaps_worked_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    second = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [0, 0, 0, 0]])
    torch.testing.assert_close(overlaps(first, second), torch.tensor([[1, 4 / 28, 0, 0], [0, 0, 0, 0.0]]))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_overlaps_and_codes_are_torchvisions(seed: int) -> None:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.ops import box_iou, clip_boxes_to_image

    generator = torch.Generator().manual_seed(seed)
    boxes, anchors = random_boxes(7, generator), random_boxes(7, generator)
    torch.testing.assert_close(overlaps(boxes, anchors), box_iou(boxes, anchors))
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    codes = encode_boxes(boxes, anchors)
    torch.testing.assert_close(codes, coder.encode_single(boxes, anchors), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decode_boxes(codes, anchors), boxes, atol=1e-4, rtol=1e-5)
    wild = 4 * torch.randn(7, 4, generator=generator)
    torch.testing.assert_close(decode_boxes(wild, anchors), coder.decode_single(wild, anchors), atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(clip_boxes(boxes, (50, 80)), clip_boxes_to_image(boxes, (50, 80)))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(0, 5), st.booleans())
def test_matches_are_torchvisions(seed: int, count: int, best: bool) -> None:
    from torchvision.models.detection._utils import Matcher

    generator = torch.Generator().manual_seed(seed)
    anchors, boxes = random_boxes(40, generator), random_boxes(count, generator)
    found = match_anchors(anchors, boxes, foreground=0.4, background=0.2, best=best)
    if not count:
        assert (found == -1).all()
        return
    assert torch.equal(found, Matcher(0.4, 0.2, allow_low_quality_matches=best)(overlaps(boxes, anchors)))


def test_points_worked_by_hand() -> None:
    # strides 8 and 16: points at 4, 12, 20, … and 8, 24, …
    fine = torch.tensor([[x, 0.0, x + 8, 8] for x in range(0, 64, 8)])
    coarse = torch.tensor([[x, 0.0, x + 16, 16] for x in range(0, 64, 16)])
    boxes = torch.tensor([[8.0, 0, 32, 8], [0, -100, 64, 116]])
    found = match_points(torch.cat([fine, coarse]), boxes)
    # box 0, around (20, 4): points nearer than 12, inside, farthest side below 64; its points 12, 20, 28
    # box 1, around (32, 8): sides of about 100 are for the coarsest level; points within 24 of the centre: 24, 40
    assert found.tolist() == [-1, 0, 0, 0, -1, -1, -1, -1, -1, 1, 1, -1]
    assert match_points(fine, boxes[:0]).tolist() == [-1] * 8


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        rivals = [k for k in kept if groups[k] == groups[i]]
        if all(float(overlaps(boxes[[k]], boxes[[i]])) <= threshold for k in rivals):
            kept.append(i)
    return kept


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 30), st.sampled_from([0.0, 0.1, 0.5, 0.7]))
def test_suppression_is_the_plain_loop(seed: int, count: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(2 * count, generator, extent=30).reshape(2, count, 4)
    scores = torch.rand(2, count, generator=generator)
    groups = torch.randint(0, 2, (2, count), generator=generator)
    found = suppress(boxes, scores, groups, threshold, 12)
    for image in range(2):
        expected = greedy(boxes[image], scores[image], groups[image], threshold)[:12]
        assert found[image].tolist() == expected + [-1] * (12 - len(expected))


def test_a_chain_of_overlaps() -> None:
    # each overlaps the next; the greedy answer is every second one, settled one round after the other
    boxes = torch.tensor([[[4.0 * i, 0, 4.0 * i + 6, 1] for i in range(9)]])
    scores = torch.linspace(1, 0, 9)[None]
    assert suppress(boxes, scores, torch.zeros(1, 9), 0.1, 9).tolist() == [[0, 2, 4, 6, 8, -1, -1, -1, -1]]


def test_empty_boxes_are_not_kept() -> None:
    boxes = torch.tensor([[[0.0, 0, 0, 5], [0, 0, 2, 2]]])
    assert suppress(boxes, torch.tensor([[0.9, 0.1]]), torch.zeros(1, 2), 0.5, 2).tolist() == [[1, -1]]


def test_suppression_has_a_shape_without_values() -> None:
    meta = torch.empty(2, 7, 4, device="meta")
    assert suppress(meta, meta[..., 0], meta[..., 0], 0.5, 3).shape == (2, 3)
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]]])
    torch.library.opcheck(
        suppress, (boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3), 0.5, 4),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_suppression_in_other_precisions(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]]]).to(dtype)
    assert suppress(boxes, torch.tensor([[0.5, 0.8, 0.7]], dtype=dtype), torch.zeros(1, 3), 0.5, 3).tolist() == [
        [1, 2, -1]
    ]
