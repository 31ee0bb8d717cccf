"""What every task promises, over the whole door."""

import pytest
import torch

from vidistill.tasks import TASKS


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param](num_classes=5)


def test_equal_outputs_compare_as_zero(task) -> None:
    outputs = torch.randn(2, 5, 6, 7)
    for loss in task.compare(outputs, outputs.clone()).values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gradient_reaches_the_student_and_never_the_teacher(task) -> None:
    student = torch.randn(2, 5, 6, 7, requires_grad=True)
    teacher = torch.randn(2, 5, 6, 7, requires_grad=True)
    sum(task.compare(student, teacher).values()).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_nothing_labelled_is_a_zero_with_a_gradient_path(task) -> None:
    student = torch.randn(2, 5, 6, 7, requires_grad=True)
    total = sum(task.supervise(student, torch.full((2, 12, 14), 255)).values())
    total.backward()
    assert total.item() == 0
    assert student.grad is not None


def test_decoding_gives_the_frames_size(task) -> None:
    assert task.decode(torch.randn(2, 5, 6, 7), size=(23, 29)).shape == (2, 23, 29)
