import copy
import dataclasses

import pytest
import torch

from tests.networks import TinySegmenter
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.methods.teacher import FrozenTeacher
from vidistill.students.delta.kinds import StudentSpec
from vidistill.tasks.segmentation.task import Segmentation


@pytest.fixture
def task() -> Segmentation:
    return Segmentation(num_classes=4)


@pytest.fixture
def batch() -> Batch:
    frames = torch.randn(2, 2, 3, 16, 24)
    return Batch(frames, frames, torch.randint(0, 4, (2, 2, 16, 24)))


def prepared(network, **options):
    method = Delta(**options)
    student = method.prepare(network, torch.zeros(1, 3, 16, 24))
    method.set_training(student)
    return method, student


@pytest.mark.parametrize("train_key_path", [True, False])
def test_delta_loss_is_the_mean_gap_of_the_changes(network, task, batch, train_key_path: bool) -> None:
    method, student = prepared(network, train_key_path=train_key_path)
    losses = method.losses(student, FrozenTeacher(network), task, batch, progress=0.0)
    first, last = batch.student[:, 0], batch.student[:, 1]
    with torch.no_grad():  # the true changes, from the network itself, frame by frame
        true = {}
        for name, frame in (("key", first), ("now", last)):
            x = network.stem(frame)
            z = network.body[0](x)
            b = torch.relu(network.body[1](z))
            true[name] = (x, z, b, network.mix(b))
        layers = student.blocks()
        predicted_body = layers["body.0"].student.linear(true["now"][0] - true["key"][0])
        rebuilt = torch.relu(network.body[1](true["key"][1] + predicted_body))
        predicted_mix = layers["mix"].student.linear(rebuilt - true["key"][2])
        gaps = [
            (predicted_body - (true["now"][1] - true["key"][1])).square().mean(),
            (predicted_mix - (true["now"][3] - true["key"][3])).square().mean(),
        ]
    assert losses["delta"].item() == pytest.approx(1.0), "scaled by its value at the first step"
    assert method.state_dict()["first"]["delta"] == pytest.approx([float(sum(gaps) / 2)], rel=1e-4)
    per_layer = dataclasses.replace(method, delta_scale="layer")
    losses = per_layer.losses(student, FrozenTeacher(network), task, batch, progress=0.0)
    assert losses["delta"].item() == pytest.approx(1.0)
    assert per_layer.state_dict()["first"]["delta"] == pytest.approx([float(gap) for gap in gaps], rel=1e-4)
    unscaled = dataclasses.replace(method, delta_scale="none")
    losses = unscaled.losses(student, FrozenTeacher(network), task, batch, progress=0.0)
    assert losses["delta"].item() == pytest.approx(float(sum(gaps) / 2), rel=1e-4)


def test_delta_loss_ends_after_its_part_of_the_run(network, task, batch) -> None:
    method, student = prepared(network)
    assert "delta" in method.losses(student, None, task, batch, progress=0.33)
    assert "delta" not in method.losses(student, None, task, batch, progress=0.34)


def test_the_scale_is_remembered(network, task, batch) -> None:
    method, student = prepared(network)
    method.losses(student, None, task, batch, progress=0.0)
    resumed, _ = prepared(network)
    resumed.load_state_dict(method.state_dict())
    changed = Batch(batch.student * 2, batch.teacher, batch.labels)
    found = resumed.losses(student, None, task, changed, progress=0.0)["delta"]
    torch.testing.assert_close(found, method.losses(student, None, task, changed, progress=0.0)["delta"])
    assert found.item() > 1.5


def test_a_frozen_key_path_takes_no_gradient_and_keeps_its_statistics(network, task, batch) -> None:
    method, student = prepared(network, train_key_path=False, freeze_norms=False)
    losses = method.losses(student, None, task, batch, progress=0.0)
    sum(losses.values()).backward()
    cheap = {id(p) for layer in student.blocks().values() for p in layer.student.parameters()}
    for parameter in student.parameters():
        assert (parameter.grad is not None) == (id(parameter) in cheap)
    for name, buffer in student.named_buffers():
        assert torch.equal(buffer, network.get_buffer(name.removeprefix("network.").replace(".block", "")))


def test_a_frozen_key_path_is_the_only_teacher(network) -> None:
    method = Delta(train_key_path=False)
    with pytest.raises(UserError, match=r"let the student start from the teacher"):
        method.prepare(network, torch.zeros(1, 3, 16, 24), teacher=FrozenTeacher(TinySegmenter(4)))
    method.prepare(network, torch.zeros(1, 3, 16, 24), teacher=FrozenTeacher(copy.deepcopy(network)))


def test_dropout_does_not_move_a_still_clip(network, task) -> None:
    network.head = torch.nn.Sequential(torch.nn.Dropout(0.5), network.head)
    method, student = prepared(network, granularity="network", student=StudentSpec("copy", scale=0.5))
    frames = torch.randn(2, 1, 3, 16, 24).expand(-1, 2, -1, -1, -1)
    _, state = student(frames[:, 0])
    assert torch.equal(student(frames[:, 1], state)[0], student(frames[:, 0])[0])
    assert student.network.block.stem.training, "what is not random trains as ever"
    assert method.train_key_path


def test_groups_and_rates(network) -> None:
    method, student = prepared(network)
    students, key_path = method.parameter_groups(student, 1e-3, steps=10)
    assert students["lr"] == pytest.approx(1e-2)
    assert key_path["lr"] == pytest.approx(1e-3)
    counted = sum(p.numel() for group in (students, key_path) for p in group["params"])
    assert counted == sum(p.numel() for p in student.parameters())


def test_teacher_loss_is_zero_for_a_still_clip(network, task) -> None:
    frame = torch.randn(2, 1, 3, 16, 24)
    still = frame.expand(2, 2, 3, 16, 24)
    method, student = prepared(network, train_key_path=False)
    losses = method.losses(student, None, task, Batch(still, still, torch.full((2, 2, 16, 24), 255)), progress=0.0)
    assert losses["teacher"].item() == pytest.approx(0.0, abs=1e-7)
    assert losses["task"].item() == 0
