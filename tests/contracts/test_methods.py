"""What every method promises, over the whole registry, for every kind of network that it is for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.contracts.examples import KINDS, pairs
from vidistill.errors import UserError
from vidistill.methods import METHODS
from vidistill.students.delta.plan import Plan
from vidistill.students.files import load_student, save_student
from vidistill.students.forms import FORMS


@pytest.fixture(params=pairs(METHODS), ids="-".join)
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def kind(pair):
    return KINDS[pair[1]]


@pytest.fixture
def method(pair):
    return METHODS[pair[0]]()


@pytest.fixture
def teacher(kind):
    return kind.teacher()


@pytest.fixture
def student(method, kind, teacher):
    return method.prepare(kind.network().eval(), kind.example(), card=kind.card(), teacher=teacher)


def run(kind, student, frames):
    """Outputs of a clip, frame by frame, the first a key frame."""
    state, outputs = None, []
    for frame in frames:
        found, state = student(frame, state or None)
        outputs.append(kind.values(found))
    return torch.stack(outputs)


@pytest.mark.parametrize("which", [0, 1])
def test_losses_are_finite_named_and_weighted(method, kind, student, teacher, which: int) -> None:
    method.set_training(student)
    task = kind.make_task()
    losses = method.losses(student, teacher, task, kind.batch(kind.lengths[which]), progress=0.0)
    assert set(losses) <= {*method.default_losses, *task.default_losses}
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())


def test_the_student_learns_and_the_teacher_never_changes(method, kind, student, teacher) -> None:
    task = kind.make_task()
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameter_groups(student, 1e-2, steps=12), lr=1e-2)
    batch = kind.batch(kind.lengths[0])
    history = []
    for _ in range(12):
        method.set_training(student)
        total = sum(method.losses(student, teacher, task, batch, progress=0.5).values())
        history.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert history[-1] < history[0]
    for name, tensor in teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


@torch.no_grad()
def test_finish_keeps_the_outputs_and_leaves_nothing_to_train(method, kind, student) -> None:
    frames = kind.frames(4)
    student.eval()
    expected = run(kind, student, frames)
    finished = method.finish(student)
    torch.testing.assert_close(run(kind, finished, frames), expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in finished.parameters())
    assert not finished.training
    assert finished.training_parts is None


def test_form_and_plan_of_the_card_are_the_methods(method, kind, teacher, student) -> None:
    other = replace(kind.card(), form="delta", plan=Plan(()))
    again = type(method)().prepare(kind.network().eval(), kind.example(), card=other, teacher=teacher)
    assert again.card == student.card


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_a_saved_student_loads_alone(method, kind, student, tmp_path: Path, half: bool) -> None:
    finished = method.finish(student)
    card = finished.card
    assert (card.view, card.task) == (kind.view, kind.make_task()), "the method adds to the card, and takes nothing off"
    assert card.form in FORMS
    save_student(tmp_path / "student.safetensors", finished, half=half)
    loaded = load_student(tmp_path / "student.safetensors", network=kind.network())
    assert loaded.card == card
    frames = kind.frames(3)
    tolerance = 3e-2 if half else 0
    torch.testing.assert_close(run(kind, loaded, frames), run(kind, finished, frames), atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 21)])
def test_any_frame_size_runs(method, kind, student, size) -> None:
    finished = method.finish(student)
    outputs = run(kind, finished, kind.frames(2, size))
    assert outputs.shape == (2, *kind.output_shape(size))


def test_method_state_survives(method, kind, student, teacher) -> None:
    method.set_training(student)
    method.losses(student, teacher, kind.make_task(), kind.batch(kind.lengths[0]), progress=0.0)
    other = type(method)()
    other.load_state_dict(method.state_dict())
    assert other.state_dict() == method.state_dict()


def test_observations_are_numbers(method, student) -> None:
    assert all(isinstance(value, float) for value in method.observations().values())


def test_what_is_observed_is_declared_and_no_loss(method, kind, student, teacher) -> None:
    method.set_training(student)
    task = kind.make_task()
    method.losses(student, teacher, task, kind.batch(kind.lengths[0]), progress=0.0)
    assert method.observations().keys() <= set(method.observed)
    assert not {*method.default_losses, *task.default_losses} & set(method.observed)


def test_an_empty_log_has_no_figures(method) -> None:
    assert method.figures([]) == []


@pytest.mark.parametrize(("name", "kind"), pairs(METHODS, fitting=False))
def test_networks_of_the_other_kind_are_refused(name: str, kind: str) -> None:
    other = KINDS[kind]
    with pytest.raises(UserError, match=f"^method {name} is for networks"):
        METHODS[name]().prepare(other.network(), other.example(), card=other.card(), teacher=other.teacher())
