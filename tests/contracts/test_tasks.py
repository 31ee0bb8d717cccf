"""What every task promises, over the whole door."""

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from tests.contracts.examples import KINDS
from vidistill.tasks import TASKS


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def task(kind):
    return kind.make_task()


def trained(outputs):
    """The outputs as a network that trains returns them."""
    return tree_map(lambda leaf: leaf.clone().requires_grad_(), outputs)


def test_every_task_is_tried() -> None:
    assert {kind.task for kind in KINDS.values()} == set(TASKS)


def test_equal_outputs_compare_as_zero(task, kind) -> None:
    outputs = kind.outputs()
    for loss in task.compare(outputs, tree_map(torch.clone, outputs)).values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gradient_reaches_the_student_and_never_the_teacher(task, kind) -> None:
    student, teacher = trained(kind.outputs()), trained(kind.outputs())
    sum(task.compare(student, teacher).values()).backward()
    assert sum(leaf.grad.abs().sum() for leaf in tree_leaves(student) if leaf.grad is not None) > 0
    assert all(leaf.grad is None for leaf in tree_leaves(teacher))


def test_nothing_labelled_is_a_zero_with_a_gradient_path(task, kind) -> None:
    student = trained(kind.outputs())
    total = sum(task.supervise(student, kind.no_labels()).values())
    total.backward()
    assert total.item() == 0
    assert any(leaf.grad is not None for leaf in tree_leaves(student))


def test_decoding_gives_a_prediction_an_example(task, kind) -> None:
    assert task.decode(kind.outputs(), size=(23, 29)).shape == kind.prediction_shape((23, 29))
