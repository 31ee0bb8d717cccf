"""What every task promises, over the whole door."""

import pytest

from tests.contracts.examples import KINDS
from vidistill.tasks import TASKS


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def task(kind):
    return kind.make_task()


def test_every_task_is_tried() -> None:
    assert {kind.task for kind in KINDS.values()} == set(TASKS)


def test_equal_outputs_compare_as_zero(task, kind) -> None:
    outputs = kind.outputs()
    for loss in task.compare(outputs, outputs.clone()).values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gradient_reaches_the_student_and_never_the_teacher(task, kind) -> None:
    student = kind.outputs().requires_grad_()
    teacher = kind.outputs().requires_grad_()
    sum(task.compare(student, teacher).values()).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_nothing_labelled_is_a_zero_with_a_gradient_path(task, kind) -> None:
    student = kind.outputs().requires_grad_()
    total = sum(task.supervise(student, kind.no_labels()).values())
    total.backward()
    assert total.item() == 0
    assert student.grad is not None


def test_decoding_gives_a_prediction_an_example(task, kind) -> None:
    assert task.decode(kind.outputs(), size=(23, 29)).shape == kind.prediction_shape((23, 29))
