import base64
import copy
import math

import numpy as np
import pytest
import torch

from tests.networks import TinyWindows
from tests.tasks.super_resolution.test_samples import clips_of, numbered
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.space_time import BALANCED_BATCHES, SpaceTime, cell_figures, cell_variance, run_with_feature
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.clip_view import WindowView
from vidistill.runs.train import OptimSettings, Training, train
from vidistill.students.card import Card
from vidistill.tasks.super_resolution import SuperResolution

TASK = SuperResolution(scale=2)
CARD = Card(view=WindowView(3))
SIZE = (6, 8)


def batch_of(num_frames: int = 2, window: int = 3) -> Batch:
    windows = torch.rand(2, num_frames, window, 3, *SIZE)
    return Batch(windows, windows, torch.randint(0, 256, (2, num_frames, 3, 12, 16), dtype=torch.uint8))


def prepared(method: SpaceTime, *, width: int = 8, window: int = 3):
    teacher = FrozenTeacher(TinyWindows(width=width, window=window), WindowView(window))
    example = torch.zeros(1, window, 3, *SIZE)
    return method.prepare(TinyWindows().train(), example, card=CARD, teacher=teacher), teacher


def losses_of(method: SpaceTime, student, teacher, batch=None):
    method.set_training(student)
    return method.losses(student, teacher, TASK, batch or batch_of(max(3, teacher.view.window) - 1), progress=0.0)


def test_the_feature_is_what_the_last_convolution_is_given() -> None:
    network = TinyWindows()
    outputs, feature = run_with_feature(network, torch.rand(2, 3, 3, *SIZE))
    assert feature.shape == (2, 8, 12, 16)
    assert outputs.shape == (2, 3, 12, 16)
    assert (feature >= 0).all(), "after the ReLU"


def test_with_given_weights_the_loss_is_that_of_the_equations() -> None:
    method = SpaceTime(space=2.0, time=0, normalised=False)
    student, teacher = prepared(method)
    assert student.training_parts is None, "without the time loss there is no ConvLSTM"
    batch = batch_of()
    student.eval()
    windows = batch.student.flatten(0, 1)
    (frames, ours), (known, theirs) = (run_with_feature(n, windows) for n in (student.network, teacher.network))
    student.network.second[1].eval()
    losses = method.losses(student, teacher, TASK, batch, progress=0.0)
    assert set(losses) == {"task", "space", "teacher"}
    distance = ((frames - known).double().square() + 1e-6).sqrt().mean() - 1e-3
    assert losses["teacher"].item() == pytest.approx(distance.item(), rel=1e-4)
    assert method.default_losses["teacher"] == 0, "the paper has none"
    gap = 0.0
    for first, second in zip(ours.double().detach().numpy(), theirs.double().detach().numpy(), strict=True):
        for y, x in np.ndindex(first.shape[1:]):
            gap += ((first[:, y, x] ** 2).sum() - (second[:, y, x] ** 2).sum()) ** 2
    assert losses["space"].item() == pytest.approx(2 * gap / (len(ours) * 12 * 16), rel=1e-4)


def test_a_balanced_loss_begins_as_a_tenth_of_the_reconstruction_and_is_then_held() -> None:
    method = SpaceTime()
    student, teacher = prepared(method)
    batch = batch_of()
    for _ in range(BALANCED_BATCHES):
        losses = losses_of(method, student, teacher, batch)
        for name in ("space", "time"):
            assert losses[name].item() == pytest.approx(0.1 * losses["task"].item(), rel=1e-3)
    held = method.observations()
    with torch.no_grad():
        student.network.output.weight.mul_(30)
        student.network.up.weight.mul_(3)
    changed = losses_of(method, student, teacher, batch)
    assert changed["task"] > 2 * losses["task"]
    assert {k: v for k, v in method.observations().items() if k.endswith("_weight")} == {
        k: v for k, v in held.items() if k.endswith("_weight")
    }


def test_a_copy_of_the_teacher_is_balanced_as_one_that_differs_by_a_hundredth() -> None:
    """Its gaps are 0, or so near that a tenth of the reconstruction loss would take a weight of 1e10."""
    method, network = SpaceTime(), TinyWindows().eval()
    teacher = FrozenTeacher(copy.deepcopy(network), WindowView(3))
    student = method.prepare(network, torch.zeros(1, 3, 3, *SIZE), card=CARD, teacher=teacher).eval()
    batch, cells = batch_of(), []
    student.training_parts["cell"].register_forward_hook(lambda *call: cells.append(call[-1].detach()))
    losses = method.losses(student, teacher, TASK, batch, progress=0.0)
    feature = run_with_feature(teacher.network, batch.student.flatten(0, 1))[1].detach().double().numpy()
    energy = np.mean([(f[:, y, x] ** 2).sum() ** 2 for f in feature for y, x in np.ndindex(f.shape[1:])])
    found = method.observations()
    assert found["space_weight"] == pytest.approx(0.1 * losses["task"].item() / (1e-4 * energy), rel=1e-3)
    cell_energy = (cells[-1].double() ** 2).mean().item()
    assert found["time_weight"] == pytest.approx(0.1 * losses["task"].item() / (1e-4 * cell_energy), rel=1e-3)
    with torch.no_grad():
        network.up.bias.add_(10)
    losses = method.losses(student, teacher, TASK, batch, progress=0.0)
    assert losses["space"] > 0
    assert method.observations()["space_weight"] < found["space_weight"]


def test_a_teacher_without_features_is_not_balanced() -> None:
    method = SpaceTime(normalised=False, time=0)
    student, teacher = prepared(method)
    for network in (student.network, teacher.network):
        torch.nn.init.zeros_(network.up.weight)
        torch.nn.init.zeros_(network.up.bias)
    losses_of(method, student, teacher)
    assert method.observations()["space_weight"] == 1


@pytest.mark.parametrize("width", [8, 12])
def test_channels_that_differ_get_an_adapter_and_normalised_maps(width: int) -> None:
    method = SpaceTime(pool=2)
    student, teacher = prepared(method, width=width)
    assert method.normalised is (width != 8)
    assert student.training_parts["cell"].gates.in_channels == 2 * width
    assert isinstance(student.training_parts["adapter"], torch.nn.Conv2d) is (width != 8)
    losses = losses_of(method, student, teacher)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_the_conv_lstm_freezes_below_the_threshold_for_good_and_after_a_resume() -> None:
    method = SpaceTime(freeze_below=1e6)
    student, teacher = prepared(method)
    batch = batch_of()
    before = copy.deepcopy(student.training_parts["cell"].state_dict())
    assert method.observations()["cell_frozen"] == 0
    losses_of(method, student, teacher, batch)
    assert method.observations()["cell_frozen"] == 1
    with torch.no_grad():
        for parameter in student.training_parts["cell"].parameters():
            parameter.add_(1.0)  # as an optimiser's momentum may still do
    gap = method.observations()["time_gap"]
    losses_of(method, student, teacher, batch)["time"].backward()
    assert method.observations()["time_gap"] == pytest.approx(gap, rel=1e-4), "what counts is the frozen one"
    assert all((p.grad == 0).all() for p in student.training_parts["cell"].parameters())
    assert student.network.first[0].weight.grad.abs().sum() > 0, "the student goes on learning"
    resumed = SpaceTime(freeze_below=1e6)
    resumed.normalised = method.normalised
    resumed.load_state_dict(method.state_dict())
    assert resumed.observations()["cell_frozen"] == 1
    for name, tensor in resumed.state_dict()["frozen"].items():
        assert torch.equal(tensor, before[name])


def test_equal_networks_freeze_it_by_the_published_threshold() -> None:
    method = SpaceTime()
    network = TinyWindows().eval()
    teacher = FrozenTeacher(copy.deepcopy(network), WindowView(3))
    student = method.prepare(network, torch.zeros(1, 3, 3, *SIZE), card=CARD, teacher=teacher)
    student.eval()
    method.losses(student, teacher, TASK, batch_of(), progress=0.0)
    assert method.observations()["cell_frozen"] == 1
    assert method.observations()["cell_variance"] > 0


def test_a_collapsed_cell_has_no_variance_however_its_channels_differ() -> None:
    constant = torch.tensor([-3.0, 0.5, 7.0])[None, :, None, None].expand(2, 3, 4, 5)
    assert cell_variance(constant) == 0
    one_place = torch.zeros(1, 2, 1, 4)
    one_place[0, 0, 0, 0] = 4.0  # the variance of 4, 0, 0, 0 is 3; the other channel's is 0
    assert cell_variance(one_place) == 1.5


def test_the_memory_cells_figure_says_when_it_froze() -> None:
    assert cell_figures([{"step": i, "loss": 1.0} for i in range(3)]) == []
    log = [
        {"step": 10 * i, "loss": 2 / i, "time": 0.5 / i, "time_gap": 1e-7 / i, "cell_variance": 0.1, "cell_frozen": 0}
        for i in range(1, 6)
    ]
    (running,) = SpaceTime.figures(log)
    assert "it did not freeze" in running.caption
    assert "time gap, unweighted from 1e-07 to 2e-08; variance of the teacher's cell from 0.1 to 0.1" in running.alt
    for line in log[3:]:
        line["cell_frozen"] = 1
    (frozen,) = SpaceTime.figures(log)
    assert "frozen from step 40 on" in frozen.caption
    pictures = [base64.b64decode(figure.light.partition(",")[2]) for figure in (running, frozen)]
    assert [picture.count(b"stroke-dasharray") > 0 for picture in pictures] == [False, True]


def test_a_random_cell_never_learns() -> None:
    method = SpaceTime(random_cell=True)
    student, teacher = prepared(method)
    losses_of(method, student, teacher)["time"].backward()
    assert not any(p.requires_grad for p in student.training_parts["cell"].parameters())
    assert method.observations()["cell_frozen"] == 1


def test_the_gaps_are_computed_in_full_precision_under_autocast() -> None:
    """In bfloat16, 8 bits, gates of nearly equal features are alike, and the gap would be below 1e-8 at once."""
    method = SpaceTime()
    student, teacher = prepared(method)
    kinds = []
    student.training_parts["cell"].gates.register_forward_hook(lambda *call: kinds.append(call[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(method, student, teacher)
    assert set(kinds) == {torch.float32}
    assert losses["time"].dtype == losses["space"].dtype == torch.float32


def test_without_true_frames_nothing_reaches_the_last_convolution() -> None:
    method = SpaceTime()
    student, teacher = prepared(method)
    batch = batch_of()
    batch.labels = batch.labels[..., :0, :0]
    with pytest.raises(UserError, match=r"data\.labels: none leaves nothing for the last convolution"):
        losses_of(method, student, teacher, batch)


def test_a_teacher_may_look_farther() -> None:
    method = SpaceTime()
    student, teacher = prepared(method, window=5)
    losses = losses_of(method, student, teacher, batch_of(window=5))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_what_is_left_is_the_plain_network() -> None:
    method = SpaceTime()
    student, _ = prepared(method)
    finished = method.finish(student)
    assert {n.removeprefix("network.") for n in finished.state_dict()} == set(TinyWindows().state_dict())


def test_mistakes() -> None:
    for options, sentence in (
        ({"space": -1.0}, "space must be at least 0, got -1"),
        ({"freeze_below": -1.0}, "freeze_below must be at least 0, got -1"),
        ({"time": -0.1}, "time must be at least 0, got -0.1"),
        ({"pool": 0}, r"pool must be at least 1, got 0"),
        ({"space": math.nan}, "space must be at least 0, got nan"),
        ({"freeze_below": math.nan}, "freeze_below must be at least 0, got nan"),
    ):
        with pytest.raises(ValueError, match=sentence):
            SpaceTime(**options)
    with pytest.raises(UserError, match=r"method\.pool must be at most 12, the side of .* feature, got 13"):
        prepared(SpaceTime(pool=13))
    method = SpaceTime(pool=12)
    assert torch.isfinite(losses_of(method, *prepared(method))["time"])
    prepared(SpaceTime(pool=13, time=0))
    with pytest.raises(UserError, match="needs a teacher"):
        SpaceTime().prepare(TinyWindows(), torch.zeros(1, 3, 3, *SIZE), card=CARD)
    plain = TinyWindows()
    plain.feature_channels = None
    with pytest.raises(UserError, match="does not say what its last high-resolution feature is"):
        SpaceTime().prepare(
            plain, torch.zeros(1, 3, 3, *SIZE), card=CARD, teacher=FrozenTeacher(TinyWindows(), WindowView(3))
        )


@pytest.mark.parametrize(("attribute", "value"), [("feature", "up"), ("feature_channels", 5)])
def test_a_feature_that_is_none_is_named(attribute: str, value: str | int) -> None:
    """One before the last enlargement, and one of other channels than are said."""
    method = SpaceTime()
    student, teacher = prepared(method)
    setattr(student.network, attribute, value)
    size = "8x6" if attribute == "feature" else "16x12"
    with pytest.raises(
        UserError, match=f"TinyWindows: the input of its feature '(up|output)' has 8 channels of {size} "
    ):
        losses_of(method, student, teacher)


def test_a_resumed_run_trains_what_one_that_was_not_stopped_does(tmp_path) -> None:
    def run(name: str, stop: int | None = None):
        torch.manual_seed(0)
        method = SpaceTime(pool=2)
        student, teacher = prepared(method)
        clips = clips_of(numbered(6), num_frames=2, window=3)
        optim = OptimSettings(name="adamw", steps=4, batch_size=2, num_workers=0)
        training = Training(
            student=student,
            teacher=teacher,
            method=method,
            task=TASK,
            clips=clips,
            loss_weights=method.default_losses,
            optim=optim,
            normalisation=TASK.normalisation,
            seed=0,
            folder=tmp_path / name,
        )
        return train(training, should_stop=lambda step: step == stop).state_dict()

    whole = run("whole")
    run("cut", stop=2)
    for name, tensor in run("cut").items():
        assert torch.equal(tensor, whole[name]), name
