"""Cross-resolution distillation against the plain formulas, worked from what hooks see of both networks."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import TinyClips
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.cross_resolution import (
    CrossResolution,
    batch_statistics,
    classifier_of,
    location_gap,
    location_logits,
)
from vidistill.methods.teacher import FrozenTeacher, TeacherCache
from vidistill.models import build_network
from vidistill.ops.clip_view import ClipView
from vidistill.students.card import Card
from vidistill.tasks.recognition import Recognition

K = 3
TASK = Recognition(num_classes=K)
SMALL = ClipView(num_frames=4, crop=16, size=8)
CARD = Card(view=SMALL)
LARGE = ClipView(num_frames=4, crop=16, size=16)
EXAMPLE = torch.zeros(1, 4, 3, 16, 16)


def batch_of() -> Batch:
    clips = torch.randn(2, 4, 3, 16, 16)
    return Batch(clips, clips, torch.eye(K)[[0, 2]])


def seen_by(network: nn.Module, clips: Tensor, path: str) -> Tensor:
    """What the module at `path` returns when the network runs on clips."""
    found: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda _, __, output: found.append(output))
    network(clips)
    handle.remove()
    return found[0]


def prepared(teacher_width: int = 6, **options):
    method = CrossResolution(**options)
    teacher = FrozenTeacher(TinyClips(K, width=teacher_width), LARGE)
    return method, method.prepare(TinyClips(K).eval(), EXAMPLE, card=CARD, teacher=teacher), teacher


def losses_of(method, student, teacher, batch) -> dict[str, Tensor]:
    return method.losses(student, teacher, TASK, batch, progress=0.0)


def test_the_published_weights() -> None:
    assert CrossResolution.default_losses == {"task": 1.0, "feature": 100.0, "location": 200.0}
    assert (CrossResolution().teacher_norms, CrossResolution().temperature, CrossResolution().stages) == (
        "batch",
        2.0,
        1,
    )


@pytest.mark.parametrize("teacher_norms", ["stored", "batch"])
def test_the_feature_gap_by_hooks(teacher_norms) -> None:
    method, student, teacher = prepared(teacher_norms=teacher_norms)
    batch = batch_of()
    losses = losses_of(method, student, teacher, batch)
    small = F.interpolate(batch.student.flatten(0, 1), size=(8, 8), mode="bilinear").unflatten(0, (2, 4))
    ours = seen_by(student.network, small, "second")
    reference = copy.deepcopy(teacher.network)
    if teacher_norms == "batch":
        for norm in reference.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.train()
    theirs = seen_by(reference, batch.teacher, "second")
    up = F.interpolate(ours, size=theirs.shape[-2:], mode="bilinear")
    assert losses.keys() == {"task", "feature"}
    assert losses["feature"].item() == pytest.approx(((up - theirs) ** 2).mean().item(), rel=1e-5)
    logits = student.network(small)
    expected = -(logits.log_softmax(dim=1)[[0, 1], [0, 2]]).mean()
    assert losses["task"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert student.training_parts is not None
    assert len(student.training_parts) == 0, "no projection where channels agree"


def test_batch_statistics_are_really_used() -> None:
    gaps = []
    for teacher_norms in ("stored", "batch"):
        torch.manual_seed(3)
        method, student, teacher = prepared(teacher_norms=teacher_norms)
        gaps.append(losses_of(method, student, teacher, batch_of())["feature"].item())
    assert abs(gaps[0] - gaps[1]) > 0.01 * gaps[0]


def test_a_projection_where_channels_differ_and_none_when_finished() -> None:
    method, student, teacher = prepared(teacher_width=8, teacher_norms="stored")
    batch = batch_of()
    projection = student.training_parts["second:second"]
    assert (projection.in_channels, projection.out_channels, projection.kernel_size) == (12, 16, (1, 1))
    loss = losses_of(method, student, teacher, batch)["feature"]
    ours = projection(seen_by(student.network, SMALL(batch.student), "second"))
    theirs = seen_by(teacher.network, batch.teacher, "second")
    up = F.interpolate(ours, size=theirs.shape[-2:], mode="bilinear")
    assert loss.item() == pytest.approx(((up - theirs) ** 2).mean().item(), rel=1e-5)
    trained = [id(p) for group in method.parameter_groups(student, 0.1, steps=1) for p in group["params"]]
    assert id(projection.weight) in trained
    student.eval()
    outputs, _ = student(batch.student)
    finished = method.finish(student)
    assert torch.equal(finished(batch.student)[0], outputs)
    assert {name.split(".")[0] for name in finished.state_dict()} == {"network"}


@pytest.mark.parametrize("first", ["first", "second"], ids=["each stage once", "one student stage twice"])
def test_stages_are_averaged(first: str) -> None:
    torch.manual_seed(5)
    pairs = [(first, "first"), ("second", "second")]
    method, student, teacher = prepared(teacher_width=8, teacher_norms="stored", stages=pairs)
    batch = batch_of()
    both = losses_of(method, student, teacher, batch)["feature"].item()
    alone = []
    for pair in pairs:
        method.stages = [pair]
        alone.append(losses_of(method, student, teacher, batch)["feature"].item())
    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)


# Locations


def slow_location_gap(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T² KL of logits (B, T, K, h, w), by a loop; mean over locations and classes."""
    total = 0.0
    batch, frames, classes, height, width = student.shape
    for b in range(batch):
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    p = [math.exp(v / temperature) for v in teacher[b, t, :, y, x].tolist()]
                    q = [math.exp(v / temperature) for v in student[b, t, :, y, x].tolist()]
                    p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
                    total += sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
    return temperature**2 * total / (batch * frames * classes * height * width)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_location_gap_is_that_of_a_slow_loop(temperature: float) -> None:
    student, teacher = torch.randn(2, 2, 2, 3, 4, 3).unbind()
    found = location_gap(student, teacher, temperature=temperature).item()
    assert found == pytest.approx(slow_location_gap(student, teacher, temperature), rel=1e-4)
    assert location_gap(student, student, temperature=temperature).item() == pytest.approx(0, abs=1e-6)


def test_the_classifier_reads_every_location() -> None:
    classifier, features = nn.Linear(5, K), torch.randn(2, 3, 5, 2, 2)
    found = location_logits(features, classifier)
    for b, t, y, x in ((0, 0, 0, 0), (1, 2, 1, 0), (0, 1, 1, 1)):
        torch.testing.assert_close(found[b, t, :, y, x], classifier(features[b, t, :, y, x]))
    with pytest.raises(UserError, match="the classifier reads 5 channels, the features have 4; compare the last"):
        location_logits(features[:, :, :4], classifier)


@pytest.mark.parametrize(("classifier", "width"), [("own", 6), ("own", 8), ("teacher", 6)])
def test_the_location_form_by_hooks(classifier, width: int) -> None:
    method, student, teacher = prepared(width, gap="locations", classifier=classifier, teacher_norms="stored")
    batch = batch_of()
    losses = losses_of(method, student, teacher, batch)
    assert losses.keys() == {"task", "location"}
    assert not list(student.training_parts.parameters())
    theirs = seen_by(teacher.network, batch.teacher, "second")
    ours = F.interpolate(
        seen_by(student.network, SMALL(batch.student), "second"), size=theirs.shape[-2:], mode="bilinear"
    )
    reader = student.network.head if classifier == "own" else teacher.network.head
    mine, other = (
        head(f.movedim(1, -1)).movedim(-1, 1).unflatten(0, (2, 4))
        for head, f in ((reader, ours), (teacher.network.head, theirs))
    )
    assert losses["location"].item() == pytest.approx(slow_location_gap(mine, other, 2.0), rel=1e-4)
    losses["location"].backward()
    assert (student.network.head.weight.grad is None) is (classifier == "teacher")
    assert student.network.second[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def test_a_network_without_a_linear_classifier_is_refused() -> None:
    with pytest.raises(UserError, match="Sequential does not say which linear layer its classifier is"):
        classifier_of(nn.Sequential())
    network = TinyClips(K)
    assert classifier_of(network) is network.head
    network.classifier = "first"
    with pytest.raises(UserError, match="does not say which linear layer"):
        classifier_of(network)


# The teacher


class Droopy(TinyClips):
    """With what a training mode would switch on."""

    def __init__(self) -> None:
        super().__init__(K)
        self.dropout = nn.Dropout(0.9)


@pytest.mark.parametrize("teacher_norms", ["batch", "stored"])
@pytest.mark.parametrize("gap", ["features", "locations"])
def test_no_gradient_reaches_the_teacher_which_ends_bit_identical(gap, teacher_norms) -> None:
    method = CrossResolution(gap=gap, teacher_norms=teacher_norms)
    teacher = FrozenTeacher(Droopy(), LARGE)
    student = method.prepare(TinyClips(K), EXAMPLE, card=CARD, teacher=teacher)
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    modes = [(m.training, getattr(m, "track_running_stats", None)) for m in teacher.network.modules()]
    optimizer = torch.optim.SGD(method.parameter_groups(student, 0.1, steps=4), lr=0.1, weight_decay=0.1)
    for _ in range(4):
        method.set_training(student)
        optimizer.zero_grad()
        sum(losses_of(method, student, teacher, batch_of()).values()).backward()
        optimizer.step()
    after = teacher.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    assert [(m.training, getattr(m, "track_running_stats", None)) for m in teacher.network.modules()] == modes


@pytest.mark.parametrize("name", ["tiny", "timm"])
def test_batch_statistics_leave_what_is_stored_and_other_modules_alone(name: str) -> None:
    options = {"num_classes": K, "backbone": "mobilenetv2_035"}
    network = (Droopy() if name == "tiny" else build_network("tsn", options=options)).eval()
    clips = torch.randn(2, 2, 3, 32, 32)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.no_grad():
        stored = network(clips)
        with batch_statistics(network):
            first, second = network(clips), network(clips)
            alone = network(clips[:1])
        assert torch.equal(first, second), "dropout stays off"
        assert not torch.allclose(first, stored, atol=1e-3 * stored.abs().max().item())
        assert not torch.allclose(first[:1], alone, atol=1e-3 * stored.abs().max().item()), "batch-mates count"
        assert torch.equal(network(clips), stored)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    with pytest.raises(ZeroDivisionError), batch_statistics(network):
        raise ZeroDivisionError
    assert not any(module.training for module in network.modules())


# Mistakes


def test_what_does_not_fit_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="cross_resolution distillation needs a teacher; name one in the recipe"):
        CrossResolution().prepare(TinyClips(K), EXAMPLE, card=CARD)
    with pytest.raises(UserError, match="TinyClips has no module 'secnd' to tap; did you mean second"):
        prepared(stages=[("secnd", "second")])
    with pytest.raises(UserError, match="3 stages cannot be matched: the student has first, second"):
        prepared(stages=3)
    cached = FrozenTeacher(TinyClips(K), LARGE, TeacherCache(tmp_path))
    with pytest.raises(UserError, match=r"method\.teacher_norms is batch, .* cannot be cached; set it to stored"):
        CrossResolution().prepare(TinyClips(K), EXAMPLE, card=CARD, teacher=cached)
    without_norms = TinyClips(K)
    without_norms.first[1] = without_norms.second[1] = nn.Identity()
    cached = FrozenTeacher(without_norms, LARGE, TeacherCache(tmp_path))
    CrossResolution().prepare(TinyClips(K), EXAMPLE, card=CARD, teacher=cached)  # depends on no batch


def test_location_mistakes_come_before_training() -> None:
    with pytest.raises(UserError, match="TinyClips has no module 'secnd' to tap"):
        prepared(gap="locations", stages=[("secnd", "second")])
    with pytest.raises(UserError, match="the classifier reads 16 channels, the features have 12"):
        prepared(8, gap="locations", classifier="teacher")
