"""The control that holds a key frame's output: what it holds is in the state, whatever a network returns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import TinyDetector, TinySegmenter
from vidistill.models.outputs import named_tensors
from vidistill.students.card import Card
from vidistill.students.state import without_key_frame
from vidistill.students.student import HeldOutput
from vidistill.tasks.segmentation import Segmentation


class Moody(nn.Module):
    """Bright frames give a mapping with a list, dark ones a tensor alone, as an object with `.logits`."""

    class Wrapped:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    def forward(self, frame: Tensor) -> Any:
        if frame.mean() > 0:
            return {"logits": frame[:, :1], "levels": [frame + i for i in range(11)], "gap": (None, frame)}
        return self.Wrapped(frame * 2)


def assert_equal(outputs: Any, expected: Any) -> None:
    ours, theirs = named_tensors(outputs, "output"), named_tensors(expected, "output")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def vars_of(module: nn.Module) -> list[dict[str, object]]:
    return [dict(vars(part)) for part in module.modules()]


@torch.no_grad()
def test_streams_of_two_structures_do_not_feel_each_other() -> None:
    """Nothing is kept on the module: neither tensors nor the shape that the last outputs had."""
    student = HeldOutput(Moody()).eval()
    before = vars_of(student)
    bright, dark = torch.ones(1, 3, 4, 5), -torch.ones(1, 3, 2, 2)
    held_bright, state_bright = student(bright)
    held_dark, state_dark = student(dark)
    assert held_bright["gap"][0] is None
    assert [level[0, 0, 0, 0].item() for level in held_bright["levels"]] == [1 + i for i in range(11)]
    assert torch.equal(held_dark["logits"], dark * 2)
    for _ in range(2):
        again_bright, state_bright = student(torch.rand(1, 3, 4, 5), state_bright)
        again_dark, state_dark = student(torch.rand(1, 3, 2, 2), state_dark)
        assert_equal(again_bright, held_bright)
        assert_equal(again_dark, held_dark)
    assert vars_of(student) == before
    assert without_key_frame(state_bright) is None


@torch.no_grad()
@pytest.mark.parametrize("network", [TinySegmenter(4), TinyDetector(4)], ids=["segmenter", "detector"])
def test_a_key_frame_is_the_networks_and_the_next_one_is_new(network: nn.Module) -> None:
    student = HeldOutput(network.eval(), Card(task=Segmentation(num_classes=4))).eval()
    assert student.has_key_frames
    frames = torch.randn(3, 2, 3, 17, 22)
    held, state = student(frames[0])
    assert all(name.startswith("key/") and len(tensor) == 2 for name, tensor in state.items())
    in_another_order = dict(reversed(state.items()))
    for outputs in (held, student(frames[1], state)[0], student(frames[1], in_another_order)[0]):
        assert_equal(outputs, network(frames[0]))
    assert_equal(student(frames[2], without_key_frame(state))[0], network(frames[2]))
