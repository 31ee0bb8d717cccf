"""Spectrum, parameters and their learned weights: each against its formula, alone and together."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.networks import TinyClips
from tests.training_program import clip_training_of
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.collaborative import (
    Collaborative,
    LearnedWeights,
    SpectrumSpec,
    comparable_kernels,
    parameter_gap,
    spatial_kernels,
    weight_figures,
)
from vidistill.methods.features import StagePair, run_with_features
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models import build_network
from vidistill.ops.clip_view import ClipView
from vidistill.ops.spectrum import frequency_distribution, spectrum_gap
from vidistill.runs.train import train
from vidistill.students.card import Card
from vidistill.tasks.recognition import Recognition
from vidistill.training_log import read_log

K = 3
TASK = Recognition(num_classes=K)
VIEW = ClipView(num_frames=4, crop=16, size=16)
CARD = Card(view=VIEW)
EXAMPLE = torch.zeros(1, 4, 3, 16, 16)
PAIRS = [StagePair("first", "first"), StagePair("second", "second")]


def batch_of() -> Batch:
    clips = torch.randn(2, 4, 3, 16, 16)
    return Batch(clips, clips, torch.eye(K)[[0, 2]])


def prepared(width: int = 6, **options):
    method = Collaborative(**options)
    teacher = FrozenTeacher(TinyClips(K, width=width), VIEW)
    return method, method.prepare(TinyClips(K).eval(), EXAMPLE, card=CARD, teacher=teacher), teacher


def losses_of(method, student, teacher, batch):
    return method.losses(student, teacher, TASK, batch, progress=0.0)


# Learned weights


def test_learned_weights_are_the_formula() -> None:
    weights = LearnedWeights(["task", "spectrum", "parameters"])
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([0.5, -1.0, 2.0]))
    found = weights({"task": torch.tensor(2.0), "spectrum": torch.tensor(3.0), "parameters": torch.tensor(4.0)})
    assert found["task"].item() == pytest.approx(math.exp(-0.5) * 2)
    assert found["spectrum"].item() == pytest.approx(math.exp(1.0) * 3 / 2), "a half for a squared distance"
    assert found["parameters"].item() == pytest.approx(math.exp(-2.0) * 4)
    assert found["balance"].item() == pytest.approx((0.5 - 1 + 2) / 2)
    assert weights.weights() == pytest.approx(
        {"task": math.exp(-0.5), "spectrum": math.exp(1) / 2, "parameters": math.exp(-2)}
    )


def test_their_gradient_at_the_start_by_hand() -> None:
    weights = LearnedWeights(["task", "spectrum"])
    losses = {"task": torch.tensor(2.0, requires_grad=True), "spectrum": torch.tensor(3.0, requires_grad=True)}
    sum(weights(losses).values()).backward()
    assert weights.log_variances.grad.tolist() == pytest.approx([-2 + 0.5, -3 / 2 + 0.5])
    assert losses["task"].grad.item() == 1
    assert losses["spectrum"].grad.item() == 0.5


def test_a_constant_loss_settles_where_the_formula_says() -> None:
    weights = LearnedWeights(["task"])
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        sum(weights({"task": torch.tensor(0.7)}).values()).backward()
        optimizer.step()
    # d/ds (e^−s L + s/2) = 0 at s = ln 2L
    assert weights.log_variances.item() == pytest.approx(math.log(1.4), abs=1e-3)


@pytest.mark.parametrize(("value", "bound"), [(9.0, 6.0), (-9.0, -6.0)])
def test_they_stay_within_their_bounds_and_can_come_back(value: float, bound: float) -> None:
    weights = LearnedWeights(["task"])
    nn.init.constant_(weights.log_variances, value)
    found = weights({"task": torch.tensor(1.0)})
    assert found["balance"].item() == pytest.approx(bound / 2)
    assert weights.weights()["task"] == pytest.approx(math.exp(-bound))
    sum(found.values()).backward()
    assert weights.log_variances.grad.item() == pytest.approx(0.5 - math.exp(-bound))


def test_they_train_without_weight_decay_and_are_observed() -> None:
    method, student, _ = prepared()
    groups = method.parameter_groups(student, 0.1, steps=10)
    own = student.training_parts["weights"].log_variances
    mine = [group for group in groups if any(p is own for p in group["params"])]
    assert len(mine) == 1
    assert (len(mine[0]["params"]), mine[0]["weight_decay"], mine[0]["lr"]) == (1, 0.0, 0.1)
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in student.parameters())
    assert method.observations() == {"weight_task": 1.0, "weight_spectrum": 0.5, "weight_parameters": 1.0}
    method.weights_learning_rate = 0.7
    assert [group["lr"] for group in method.parameter_groups(student, 0.1, steps=10)][-1] == 0.7


def test_no_weights_where_they_are_fixed() -> None:
    method, student, teacher = prepared(weighting="fixed")
    assert method.observations() == {}
    assert "weights" not in student.training_parts
    assert losses_of(method, student, teacher, batch_of()).keys() == {"task", "spectrum", "parameters"}


def test_their_figure_says_where_each_began_and_ended() -> None:
    assert weight_figures([{"step": 1, "loss": 0.5}]) == []
    log = [{"step": 10 * i, "loss": 1.0, "weight_task": 1.0 / i, "weight_spectrum": 0.5 * i} for i in (1, 2, 4)]
    (picture,) = Collaborative.figures(log)
    assert picture.alt == "Learned weights of the losses: task from 1 to 0.25; spectrum from 0.5 to 2"
    assert picture.light.startswith("data:image/svg+xml;base64,")


# The losses


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"spectrum": None, "parameters": False}, set()),
        ({"parameters": False}, {"spectrum"}),
        ({"spectrum": None}, {"parameters"}),
        ({"logits": True}, {"spectrum", "parameters", "teacher"}),
    ],
    ids=["none", "spectrum", "parameters", "all"],
)
@pytest.mark.parametrize("weighting", ["learned", "fixed"])
def test_each_alone_and_together(options, names, weighting) -> None:
    method, student, teacher = prepared(8, **options, weighting=weighting)
    losses = losses_of(method, student, teacher, batch_of())
    assert losses.keys() == {"task", *names} | ({"balance"} if weighting == "learned" else set())
    observed = {f"weight_{name}" for name in losses if name != "balance"} if weighting == "learned" else set()
    assert method.observations().keys() == observed


@torch.no_grad()
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("width", [6, 8])
def test_losses_by_the_features_of_both(width: int, pooled: bool) -> None:
    spec = SpectrumSpec(transform="dct", kind="log", frequency_weights=(0.0, 1.0, 2.0, 3.0), pooled=pooled)
    method, student, teacher = prepared(width, spectrum=spec, weighting="fixed")
    batch = batch_of()
    losses = losses_of(method, student, teacher, batch)
    _, ours = run_with_features(student.network, batch.student, ["first", "second"])
    _, theirs = run_with_features(teacher.network, batch.teacher, ["first", "second"])
    adapters = student.training_parts["adapters"]
    assert set(adapters) == (set() if width == 6 else {"first:first", "second:second"})
    gaps = []
    for path in ("first", "second"):
        own = ours[path] if width == 6 else adapters[f"{path}:{path}"](ours[path].flatten(0, 1)).unflatten(0, (2, 4))
        sides = [f.mean(dim=(3, 4), keepdim=True) if pooled else f for f in (own, theirs[path])]
        gaps.append(spectrum_gap(*sides, transform="dct", kind="log", frequency_weights=[0, 1, 2, 3]).item())
    assert losses["spectrum"].item() == pytest.approx(sum(gaps) / 2, rel=1e-5)
    divergences = []
    for path in ("first", "second"):
        q, p = (
            frequency_distribution([network.get_submodule(path)[0].weight]).tolist()
            for network in (student.network, teacher.network)
        )
        divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    assert losses["parameters"].item() == pytest.approx(sum(divergences) / 2, rel=1e-3)


def test_a_student_like_its_teacher_has_no_gap() -> None:
    method = Collaborative(weighting="fixed")
    network = TinyClips(K).eval()
    teacher = FrozenTeacher(TinyClips(K), VIEW)
    teacher.network.load_state_dict(network.state_dict())
    student = method.prepare(network, EXAMPLE, card=CARD, teacher=teacher)
    losses = losses_of(method, student, teacher, batch_of())
    assert losses["spectrum"].item() == pytest.approx(0, abs=1e-6)
    assert losses["parameters"].item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_teacher_which_ends_bit_identical() -> None:
    method, student, teacher = prepared(8, logits=True)
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameter_groups(student, 0.1, steps=3), lr=0.1, weight_decay=0.1)
    start = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    for _ in range(3):
        method.set_training(student)
        optimizer.zero_grad()
        sum(losses_of(method, student, teacher, batch_of()).values()).backward()
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.network.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    moved = [name for name, tensor in student.named_parameters() if not torch.equal(tensor, start[name])]
    assert set(moved) == {name for name, _ in student.named_parameters()}


def test_finish_keeps_the_outputs_to_the_bit_and_the_network_alone() -> None:
    method, student, _ = prepared(8)
    student.eval()
    clips = torch.randn(2, 4, 3, 16, 16)
    outputs, _ = student(clips)
    finished = method.finish(student)
    assert torch.equal(finished(clips)[0], outputs)
    assert {name.split(".")[0] for name in finished.state_dict()} == {"network"}


# Kernels


def test_kernels_of_a_stage_by_size() -> None:
    stage = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5), nn.Conv2d(4, 4, (3, 1)),
        nn.Conv3d(4, 2, (2, 3, 3)), nn.Conv3d(2, 2, (3, 1, 1)),
    )  # fmt: skip
    found = spatial_kernels(nn.ModuleDict({"stage": stage, "other": nn.Conv2d(3, 3, 3)}), "stage")
    assert {size: [tuple(kernel.shape) for kernel in kernels] for size, kernels in found.items()} == {
        3: [(4, 3, 3, 3), (2, 4, 2, 3, 3)], 5: [(4, 4, 5, 5)],
    }  # fmt: skip
    assert found[3][0] is stage[0].weight


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv2_035", "tf_efficientnet_lite0"])
def test_every_kernel_is_of_one_stage(backbone: str) -> None:
    network = build_network("tsn", options={"num_classes": K, "backbone": backbone})
    stages = [spatial_kernels(network, path) for path in network.stages]
    found = [id(kernel) for stage in stages for kernels in stage.values() for kernel in kernels]
    assert sorted(found) == sorted(id(p) for p in network.parameters() if p.ndim == 4 and p.shape[-1] > 1)
    assert all(stages), "a MobileNet's last stage is a norm, and has kernels ahead of it"


def test_networks_of_different_width_and_depth_compare() -> None:
    resnet, mobilenet = (
        build_network("tsn", options={"num_classes": K, "backbone": name})
        for name in ("test_resnet", "mobilenetv2_035")
    )
    pairs = [StagePair(mobilenet.stages[-1], resnet.stages[-1])]
    pairs += [StagePair(mobilenet.stages[0], resnet.stages[0])]
    kernels = comparable_kernels(mobilenet, resnet, pairs)
    assert all(kernel.shape[-1] == 3 for pair in kernels for side in pair for kernel in side)
    assert parameter_gap(mobilenet, resnet, pairs).item() > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="collaborative distillation needs a teacher; name one in the recipe"):
        Collaborative().prepare(TinyClips(K), EXAMPLE, card=CARD)
    with pytest.raises(UserError, match="4 stages cannot be matched: the student has first, second; the teacher has"):
        prepared(stages=4)
    for options in ({}, {"spectrum": None}):
        with pytest.raises(UserError, match="TinyClips has no module 'secnd' to tap; did you mean second"):
            prepared(stages=[("first", "secnd")], **options)
    with pytest.raises(UserError, match=r"no kernels of one size in the stages .* set method\.parameters: false"):
        prepared(stages=[("first.1", "first.1")], spectrum=None)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (0.0, 1.0, -1.0)])
def test_frequency_weights_of_another_number_or_sign_are_refused_before_training(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"frequency_weights must be 3 numbers for 4 frames, none negative, got \[0"):
        prepared(spectrum=SpectrumSpec(frequency_weights=weights))


# A run


def test_a_run_that_was_cut_goes_on_bit_for_bit_with_its_weights(tmp_path: Path) -> None:
    whole, cut = clip_training_of(tmp_path / "whole", steps=6), clip_training_of(tmp_path / "cut", steps=6)
    train(whole)
    train(cut, should_stop=lambda step: step == 3)
    resumed = clip_training_of(tmp_path / "cut", steps=6)
    train(resumed)
    expected = whole.student.state_dict()
    found = resumed.student.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    learned = "training_parts.weights.log_variances"
    assert not torch.equal(found[learned], cut.student.state_dict()[learned])
    assert (found[learned] != 0).all()
    logs = [read_log(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    for name in ("loss", "task", "spectrum", "parameters", "balance", "weight_spectrum", "weight_task"):
        assert [line[name] for line in logs[0]] == [line[name] for line in logs[1]], name
    assert resumed.method.observations() == whole.method.observations()
