"""What every method promises, over the whole door."""

import copy
from pathlib import Path

import pytest
import torch

from tests.networks import TinySegmenter
from vidistill.checkpoint import load_student, save_student
from vidistill.data.clip import Batch
from vidistill.distill import METHODS
from vidistill.distill.card import Card
from vidistill.distill.teacher import FrozenTeacher
from vidistill.tasks.segmentation import Segmentation

TASK = Segmentation(num_classes=4)
SIZE = (17, 22)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]()


@pytest.fixture
def student(method, network):
    return method.prepare(network, torch.zeros(1, 3, *SIZE))


def batch_of(num_frames: int = 2) -> Batch:
    frames = torch.randn(2, num_frames, 3, *SIZE)
    return Batch(frames, frames, torch.randint(0, 4, (2, num_frames, *SIZE)))


def run(student, frames):
    """Outputs of a clip, frame by frame, the first a key frame."""
    state, outputs = None, []
    for frame in frames:
        found, state = student(frame, state or None)
        outputs.append(found)
    return torch.stack(outputs)


@pytest.mark.parametrize("num_frames", [2, 3])
def test_losses_are_finite_named_and_weighted(method, student, network, num_frames: int) -> None:
    method.set_training(student)
    losses = method.losses(student, FrozenTeacher(copy.deepcopy(network)), TASK, batch_of(num_frames), progress=0.0)
    assert set(losses) <= set(method.default_losses)
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())


def test_the_student_learns_and_the_teacher_never_changes(method, student, network) -> None:
    teacher = FrozenTeacher(copy.deepcopy(network))
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameter_groups(student, 1e-2, steps=12), lr=1e-2)
    batch = batch_of()
    history = []
    for _ in range(12):
        method.set_training(student)
        total = sum(method.losses(student, teacher, TASK, batch, progress=0.5).values())
        history.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert history[-1] < history[0]
    for name, tensor in teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


@torch.no_grad()
def test_finish_keeps_the_outputs_and_leaves_nothing_to_train(method, student) -> None:
    frames = torch.randn(4, 1, 3, *SIZE)
    student.eval()
    expected = run(student, frames)
    finished = method.finish(student)
    torch.testing.assert_close(run(finished, frames), expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in finished.parameters())
    assert not finished.training


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_a_saved_student_loads_alone(method, student, tmp_path: Path, half: bool) -> None:
    finished = method.finish(student)
    plan = finished.plan.to_list() if finished.plan else []
    card = Card({}, method.form, {"name": "segmentation", "num_classes": 4}, plan)
    save_student(tmp_path / "student.safetensors", finished, card, half=half)
    loaded = load_student(tmp_path / "student.safetensors", network=TinySegmenter(num_classes=4))
    assert loaded.card == card
    frames = torch.randn(3, 1, 3, *SIZE)
    tolerance = 3e-2 if half else 0
    torch.testing.assert_close(run(loaded, frames), run(finished, frames), atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 21)])
def test_any_frame_size_runs(method, student, size) -> None:
    finished = method.finish(student)
    outputs = run(finished, torch.randn(2, 1, 3, *size))
    assert outputs.shape[-2:] == tuple((side + 1) // 2 for side in size)


def test_method_state_survives(method, student) -> None:
    method.set_training(student)
    method.losses(student, None, TASK, batch_of(), progress=0.0)
    other = type(method)()
    other.load_state_dict(method.state_dict())
    assert other.state_dict() == method.state_dict()
