import math

import pytest
import torch

from vidistill.errors import UserError
from vidistill.tasks.super_resolution.task import SuperResolution

TASK = SuperResolution(scale=2)


def test_charbonnier_by_hand() -> None:
    outputs = torch.zeros(1, 3, 2, 2)
    labels = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)  # 0.2
    assert TASK.supervise(outputs, labels)["task"].item() == pytest.approx(math.sqrt(0.04 + 1e-6))
    assert TASK.compare(outputs, outputs + 0.2)["teacher"].item() == pytest.approx(
        math.sqrt(0.04 + 1e-6) - 1e-3, abs=1e-6
    )


def test_decoding_rounds_and_clamps() -> None:
    outputs = torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.3]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    decoded = TASK.decode(outputs, size=(0, 0))
    assert decoded.shape == (1, 1, 6, 3)
    assert decoded[0, 0, :, 1].tolist() == [0, 0, 0, 1, 255, 255]


def test_a_network_of_another_scale_is_named() -> None:
    with pytest.raises(UserError, match=r"task\.scale is 2, give the network the same"):
        TASK.supervise(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"scale must be one of \(2, 3, 4\), got 5"):
        SuperResolution(scale=5)


def test_networks_see_0_to_1_and_are_built_with_the_scale() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    torch.testing.assert_close(TASK.normalisation(frames).flatten(), torch.tensor([0.0, 0.2, 1.0]))
    assert TASK.network_options == {"scale": 2}
