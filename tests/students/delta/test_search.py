import pytest
import torch
from torch import nn

from tests.networks import TinySegmenter
from vidistill.data.clip import Batch
from vidistill.methods.delta import Delta
from vidistill.methods.teacher import FrozenTeacher
from vidistill.students.delta.calls import Call
from vidistill.students.delta.kinds import StudentSpec, make_student
from vidistill.students.delta.search import Search, SearchedStudent
from vidistill.tasks.segmentation.task import Segmentation

FULL, THIN, NOTHING = StudentSpec("copy"), StudentSpec("separable"), StudentSpec("nothing")
EXAMPLE = torch.zeros(1, 3, 16, 24)


def searched(network: nn.Module, **search: object):
    method = Delta(search=Search(**{"candidates": (FULL, THIN, NOTHING)} | search))
    return method, method.prepare(network, EXAMPLE)


def gates_of(student) -> list[SearchedStudent]:
    return [block.student for block in student.blocks().values()]


def test_a_searched_block_starts_with_all_its_candidates(network) -> None:
    _, student = searched(network)
    assert [str(c.student) for c in student.plan.converted[0].candidates] == [
        "copy", "separable of 4 channels", "nothing",
    ]  # fmt: skip
    for gate in gates_of(student):
        assert gate.gates.tolist() == [-1, 0, 0]


def students_of(*specs: StudentSpec) -> SearchedStudent:
    return SearchedStudent([make_student(spec, nn.Conv2d(4, 4, 1), (4, 4)) for spec in specs])


def test_samples_follow_the_gates() -> None:
    """Gumbel's maximum picks candidate i with probability softmax(gates)_i, whatever the temperature."""
    student = students_of(FULL, StudentSpec("separable", rank=2), NOTHING)
    assert student.gates.tolist() == [-1, 0, 0]
    counts = torch.zeros(3)
    for _ in range(4000):
        student.draw()
        assert student._sample is not None
        assert sorted(student._sample.tolist()) == [0, 0, 1], "one-hot to the bit"
        counts += student._sample.detach()
    torch.testing.assert_close(counts / 4000, torch.softmax(student.gates.detach(), 0), atol=0.03, rtol=0)


def test_two_candidates_are_the_papers_gate() -> None:
    """One gate b against 0: the relaxed choice is sigmoid((b + logistic noise) / τ)."""
    student = students_of(FULL, StudentSpec("copy", scale=0.5))
    torch.manual_seed(3)
    student.draw()
    assert student._sample is not None
    (gradient,) = torch.autograd.grad(student._sample[0], student.gates)
    torch.manual_seed(3)
    noise = -torch.empty(2).exponential_().log()
    soft = torch.sigmoid((-1 + noise[0] - noise[1]) * 1.5)
    torch.testing.assert_close(gradient, soft * (1 - soft) * 1.5 * torch.tensor([1.0, -1.0]))


def test_a_step_is_the_drawn_candidate(network) -> None:
    _, student = searched(network)
    gate = gates_of(student)[0]
    x_0, x_t, z_0 = torch.randn(1, 8, 5, 6), torch.randn(1, 8, 5, 6), torch.zeros(1, 16, 5, 6)
    for _ in range(5):
        gate.draw()
        drawn = gate.students()[int(gate._sample.argmax())]
        calls = Call((x_0,), {}), Call((x_t,), {})
        torch.testing.assert_close(gate.change(*calls, z_0), drawn.change(*calls, z_0))


def test_gates_learn_of_all_candidates_and_weights_of_the_drawn_one(network) -> None:
    """Against the plain form: every candidate's change with a gradient, times its part of the sample."""
    _, student = searched(network)
    gate = gates_of(student)[0]
    x_0, x_t, z_0 = torch.randn(1, 8, 5, 6), torch.randn(1, 8, 5, 6), torch.zeros(1, 16, 5, 6)
    calls, wish = (Call((x_0,), {}), Call((x_t,), {})), torch.randn(1, 16, 5, 6)
    gate.draw()
    plain = sum(part * s.change(*calls, z_0) for part, s in zip(gate._sample, gate.students(), strict=True))
    parameters = dict(gate.named_parameters())
    wanted = torch.autograd.grad((wish * plain).sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
    found = torch.autograd.grad(
        (wish * gate.change(*calls, z_0)).sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    assert found[0].abs().max() > 0, "the gates'"
    for name, gradient, expected in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if expected is None else expected, msg=name)


def test_cost_is_the_part_of_all_macs(network) -> None:
    method, student = searched(network)
    batch = Batch(torch.randn(2, 2, 3, 16, 24), torch.randn(2, 2, 3, 16, 24), torch.zeros(2, 2, 16, 24).long())
    for gate in gates_of(student):
        with torch.no_grad():
            gate.gates.copy_(torch.tensor([0.0, 50.0, 0.0]))
    cost = method.losses(student, None, Segmentation(num_classes=4), batch, progress=0.5)["cost"]
    entries = student.plan.converted
    assert cost.item() == pytest.approx(sum(e.candidates[1].macs for e in entries) / sum(e.macs for e in entries))


@pytest.mark.parametrize(("weight", "kind"), [(0.0, "copy"), (50.0, "nothing")])
def test_a_short_run_really_searches(network: TinySegmenter, weight: float, kind: str) -> None:
    """Without a cost the full layer wins, as it alone follows the teacher; at any price nothing does."""
    method, student = searched(network)
    steps, teacher, task = 60, FrozenTeacher(network), Segmentation(num_classes=4)
    optimizer = torch.optim.AdamW(method.parameter_groups(student, 1e-4, steps=steps))
    for step in range(steps):
        frames = torch.randn(2, 2, 3, 16, 24)
        batch = Batch(frames, frames, torch.full((2, 2, 16, 24), 255))
        method.set_training(student)
        losses = method.losses(student, teacher, task, batch, progress=step / steps)
        total = losses["teacher"] + losses.get("delta", 0) + weight * losses.get("cost", 0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    finished = method.finish(student)
    assert {entry.student.kind for entry in finished.plan.converted} == {kind}
    assert not any(isinstance(module, SearchedStudent) for module in finished.modules())
    assert all(len(entry.candidates) == 1 for entry in finished.plan.converted)


def test_the_choice_settles_and_trains_undisturbed(network: TinySegmenter) -> None:
    method, student = searched(network, until=0.5)
    frames = torch.randn(2, 2, 3, 16, 24)
    batch = Batch(frames, frames, torch.zeros(2, 2, 16, 24).long())
    method.losses(student, None, Segmentation(num_classes=4), batch, progress=0.49)  # leaves a sample behind
    losses = method.losses(student, None, Segmentation(num_classes=4), batch, progress=0.5)
    assert "cost" not in losses
    losses["task"].backward()
    for gate in gates_of(student):
        assert gate.choice == 1, "the first of the cheap ones, whose gates start above the copy's"
        trained = [any(p.grad is not None for p in candidate.parameters()) for candidate in gate.candidates]
        assert trained == [False, True, False]
        assert gate.gates.grad is None


@pytest.mark.parametrize(("until", "bound"), [(0.0, "at least 0.001"), (1.5, "at most 1")])
def test_a_search_lasts_a_part_of_the_run(until: float, bound: str) -> None:
    with pytest.raises(ValueError, match=rf"until must be {bound}, got {until}"):
        Search(until=until)


@torch.no_grad()
def test_finishing_keeps_what_the_gates_say(network) -> None:
    method, student = searched(network)
    for number, gate in enumerate(gates_of(student)):
        gate.gates[number] = 3
    frames = torch.randn(3, 1, 3, 16, 24)
    _, state = student.eval()(frames[0])
    expected = student(frames[1], state)[0]
    finished = method.finish(student)
    assert [entry.student.kind for entry in finished.plan.converted] == ["copy", "separable"]
    torch.testing.assert_close(finished(frames[1], finished(frames[0])[1])[0], expected, atol=1e-5, rtol=1e-4)


def test_gates_travel_alike_in_runs_of_any_length(network) -> None:
    method, student = searched(network)
    rates = [method.parameter_groups(student, 1e-4, steps=steps)[-1]["lr"] * steps for steps in (10, 1000)]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("candidates", [(), (THIN,), (THIN, StudentSpec("separable"))])
def test_a_search_needs_a_choice(candidates) -> None:
    with pytest.raises(ValueError, match="two different ones"):
        Search(candidates)
