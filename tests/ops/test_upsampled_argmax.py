import pytest
import torch
from torch.nn import functional as F

from vidistill.ops.upsampled_argmax import upsampled_argmax


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (15, 21), (20, 28), (40, 56), (13, 20), (10, 21), (3, 4)])
@pytest.mark.parametrize("num_classes", [2, 19])
def test_equals_the_argmax_of_all_logits_resized(size: tuple[int, int], num_classes: int) -> None:
    torch.manual_seed(num_classes)
    logits = F.avg_pool2d(torch.randn(2, num_classes, 7, 9), 3, stride=1)  # 5×7, with areas of one class
    resized = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=False)
    found = upsampled_argmax(logits, size)
    assert (found.shape, found.dtype) == ((2, *size), torch.uint8)
    best = resized.max(dim=1).values
    assert float((best - resized.gather(1, found.long()[:, None])[:, 0]).max()) < 1e-5, "or it is tied"
    assert float((found == resized.argmax(dim=1)).float().mean()) > 0.999


def test_one_class_and_one_place() -> None:
    assert upsampled_argmax(torch.tensor([[[[1.0]], [[2.0]]]]), (4, 4)).tolist() == [[[1] * 4] * 4]
    assert not upsampled_argmax(torch.randn(1, 1, 2, 3), (8, 12)).any()
