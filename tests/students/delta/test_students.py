"""What every kind of student promises, on blocks of every size, and each kind's formula written out."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tests.networks import TinySegmenter, settle_norms
from vidistill.errors import UserError
from vidistill.ops.macs import count_macs
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.network import DeltaNetwork, delta_network
from vidistill.students.files import load_student, save_student
from vidistill.students.norms import fused_copy

SIZE = (18, 26)
HALF = {"scale": 0.5}
CASES = {
    "layer separable": (Selection(), StudentSpec()),
    "layer separable at half": (Selection(), StudentSpec(scale=0.5)),
    "layer copy at half": (Selection(), StudentSpec("copy", scale=0.5)),
    "layer nothing": (Selection(), StudentSpec("nothing")),
    "layer bottleneck": (Selection(leave=("mix",)), StudentSpec("bottleneck", reduction=2)),
    "block bottleneck": (Selection("block", ("body",)), StudentSpec("bottleneck", reduction=2)),
    "block bottleneck at half": (Selection("block", ("body",)), StudentSpec("bottleneck", reduction=2, scale=0.5)),
    "block copy at 0.75": (Selection("block", ("stem", "body")), StudentSpec("copy", scale=0.75)),
    "block nothing": (Selection("block", ("body",)), StudentSpec("nothing")),
    "network copy at half": (Selection("network"), StudentSpec("copy", scale=0.5)),
}


def untrained(network: nn.Module, selection: Selection, spec: StudentSpec) -> DeltaNetwork:
    """A student whose weights do something: what starts at zero, or as the block itself, is shaken."""
    student = delta_network(network, plan_conversion(network, torch.zeros(1, 3, *SIZE), selection, [spec]))
    with torch.no_grad():
        for block in student.blocks().values():
            settle_norms(block.student)
            for parameter in block.student.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return student.eval()


@pytest.fixture(params=CASES)
def student(request, network: TinySegmenter) -> DeltaNetwork:
    return untrained(network, *CASES[request.param])


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randn(4, 2, 3, *SIZE)


def clip_of(student: DeltaNetwork, frames: torch.Tensor) -> tuple[torch.Tensor, dict]:
    outputs, state = student(frames[0])
    found = [outputs]
    for frame in frames[1:]:
        outputs, state = student(frame, state)
        found.append(outputs)
    return torch.stack(found), state


def elements(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_key_frames_are_the_network_and_still_clips_are_still_to_the_bit(student, network, frames) -> None:
    still = frames[:1].expand(3, -1, -1, -1, -1)
    outputs, _ = clip_of(student, still)
    assert all(torch.equal(found, network(frames[0])) for found in outputs)


@torch.no_grad()
def test_folding_gives_the_same_frames(student, frames) -> None:
    expected, unfolded = clip_of(student, frames)
    student.folding = "later"
    found, state = clip_of(student, frames)
    assert gap(found, expected) < 1e-5
    assert not {"input", "output"} & {name.rsplit("/")[-1].split(".")[0] for name in state}
    assert elements(state) <= elements(unfolded)


@torch.no_grad()
def test_frames_move_unless_held(student, frames) -> None:
    outputs, _ = clip_of(student, frames)
    if any(entry.student.kind == "nothing" for entry in student.plan.converted):
        assert torch.equal(outputs[1], outputs[0]), "the tiny network is one chain"
    else:
        assert gap(outputs[1], outputs[0]) > 1e-3


@torch.no_grad()
def test_batches_are_independent(student, frames) -> None:
    together, _ = clip_of(student, frames)
    for i in range(2):
        single, _ = clip_of(student, frames[:, i : i + 1])
        torch.testing.assert_close(single, together[:, i : i + 1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_any_size_runs(student) -> None:
    frames = torch.randn(2, 1, 3, 21, 37)
    outputs, _ = clip_of(student, frames)
    student.folding = "later"
    assert gap(clip_of(student, frames)[0], outputs) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("folding", ["never", "later"])
def test_fused_norms_change_nothing_but_the_work(student, frames, folding: str) -> None:
    student.folding = folding
    fused = fused_copy(student, frames[0, :1])
    assert gap(clip_of(fused, frames)[0], clip_of(student, frames)[0]) < 1e-5
    students = [module for block in fused.blocks().values() for module in block.student.modules()]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in students)


def test_a_change_trains_the_student(student, frames) -> None:
    student.train()
    _, state = student(frames[0])
    with student.tape.recording() as changes:
        student(frames[1], {name: tensor.detach() for name, tensor in state.items()})
    assert set(changes) == {name for name in state if "/output" in name}
    for block in student.blocks().values():
        for name, parameter in block.student.named_parameters():
            loss = sum(change.square().sum() for change in changes.values())
            (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
            assert gradient is not None or name.endswith("bias"), "a change does not feel what shifts both frames"


@torch.no_grad()
def test_saved_and_loaded(student, frames, tmp_path: Path) -> None:
    student.folding = "later"
    save_student(tmp_path / "student.safetensors", student)
    loaded = load_student(tmp_path / "student.safetensors", network=TinySegmenter(num_classes=4))
    assert loaded.plan == student.plan
    assert torch.equal(clip_of(loaded, frames)[0], clip_of(student, frames)[0])


def test_a_kind_of_another_version_is_refused(student, tmp_path: Path) -> None:
    card = json.loads(student.card.to_json())
    next(entry for entry in card["plan"] if entry["candidates"])["candidates"][0]["student"]["kind"] = "later"
    save_file(student.state_dict(), tmp_path / "student.safetensors", metadata={"card": json.dumps(card)})
    with pytest.raises(UserError, match=r"unknown student kind 'later'; .*; distil it again"):
        load_student(tmp_path / "student.safetensors", network=TinySegmenter(num_classes=4))


@torch.no_grad()
def test_planned_macs_are_those_that_run(student) -> None:
    frame = torch.zeros(1, 3, *SIZE)
    student.folding = "later"
    _, state = student(frame, student(frame)[1])
    saved = sum(entry.macs - entry.candidates[0].macs for entry in student.plan.converted)
    assert count_macs(student, frame, state) == count_macs(student, frame) - saved


def coarse_student(network: nn.Module, frames: torch.Tensor) -> tuple[DeltaNetwork, nn.Module, list[torch.Tensor]]:
    """The whole network's copy at half the size: the student, its block's, and what the copy says of two frames."""
    student = untrained(network, Selection("network"), StudentSpec("copy", scale=0.5))
    block = student.blocks()[""].student
    small = [F.interpolate(frame, size=(8, 12), mode="bilinear") for frame in frames[:2]]  # its stride is 2
    return student, block, [block.network(frame) for frame in small]


@torch.no_grad()
def test_copy_is_its_equation(network, frames) -> None:
    """z_t = c_t + w · (z_0 − c_0), c = up(f(down(x))), w = 1 / (1 + d · |f_t − f_0|² / v)."""
    student, block, (f_0, f_t) = coarse_student(network, frames)
    z_0 = network(frames[0])
    v = (z_0 - z_0.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3)).sum(dim=1)
    w = 1 / (1 + block.log_doubt.exp() * (f_t - f_0).square().sum(dim=1) / v[:, None, None])
    c_0, c_t, w = (F.interpolate(x, size=z_0.shape[-2:], mode="bilinear") for x in (f_0, f_t, w[:, None]))
    torch.testing.assert_close(clip_of(student, frames)[0][1], c_t + w * (z_0 - c_0), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("log_doubt", [-40.0, 40.0])
def test_a_copy_corrects_fully_without_doubt_and_not_at_all_with_much(network, frames, log_doubt) -> None:
    student, block, (f_0, f_t) = coarse_student(network, frames)
    block.log_doubt.fill_(log_doubt)
    z_0 = network(frames[0])
    c_0, c_t = (F.interpolate(x, size=z_0.shape[-2:], mode="bilinear") for x in (f_0, f_t))
    expected = c_t + (z_0 - c_0) * (log_doubt < 0)
    torch.testing.assert_close(clip_of(student, frames)[0][1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_bottleneck_is_its_equation(network, frames) -> None:
    """z_t = z_0 + g([x_0, x_t]) − g([x_0, x_0]), g's first layer on both frames stacked."""
    student = untrained(network, Selection("block", ("body",)), StudentSpec("bottleneck", reduction=2))
    g = student.blocks()["body"].student
    assert g.expand.in_channels == 8 // 2
    kernel = torch.cat([g.from_key.weight, g.from_now.weight], dim=1)

    def change(x_0, x_t):
        x = F.relu(g.norm(F.conv2d(torch.cat([x_0, x_t], dim=1), kernel)))
        return g.expand(F.relu(g.spatial_norm(g.horizontal(g.vertical(x)))))

    x_0, x_t = network.stem(frames[0]), network.stem(frames[1])
    body = network.body(x_0) + change(x_0, x_t) - change(x_0, x_0)
    expected = network.head(torch.relu(network.mix(body) + body))
    torch.testing.assert_close(clip_of(student, frames)[0][1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_nothing_holds_the_block_alone(network, frames) -> None:
    student = untrained(network, Selection("block", ("body",)), StudentSpec("nothing"))
    body = network.body(network.stem(frames[0]))
    outputs, _ = clip_of(student, frames)
    torch.testing.assert_close(outputs[1], network.head(torch.relu(network.mix(body) + body)))


def test_batch_statistics_keep_a_still_clip_still(network, frames) -> None:
    student = untrained(network, Selection("block", ("body",)), StudentSpec("bottleneck", reduction=2)).eval()
    for block in student.blocks().values():
        block.student.train()
    still = frames[:1].expand(2, -1, -1, -1, -1)
    outputs, _ = clip_of(student, still)
    assert torch.equal(outputs[0], outputs[1])


class Lists(nn.Module):
    """Blocks that take and return several tensors, by position and by name, and one number."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, features: list[torch.Tensor], *, gain: float, extra: torch.Tensor) -> dict:
            return {"a": self.first(features[0]) * gain, "b": [self.second(features[1] + extra)]}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.two, self.head = nn.Conv2d(3, 8, 1), self.Two(), nn.Conv2d(8, 4, 1)

    def forward(self, frame):
        x = self.stem(frame)
        found = self.two([x, -x], gain=0.5, extra=x.abs())
        return self.head(torch.relu(found["a"]) + found["b"][0])


@torch.no_grad()
def test_blocks_of_several_tensors(frames) -> None:
    network = Lists()
    student = untrained(network, Selection("block", ("two",)), StudentSpec("copy", scale=0.5))
    expected, state = clip_of(student, frames)
    assert sorted(state) == sorted(f"key/two/{name}" for name in ("input", "input.1", "input.2", "output", "output.1"))
    student.folding = "later"
    assert gap(clip_of(student, frames)[0], expected) < 1e-5
    plan = plan_conversion(network, frames[0], Selection("block", ("two",)), [StudentSpec("nothing")])
    assert "several tensors" in {block.path: block.reason for block in plan.blocks}["two"]


@torch.no_grad()
def test_what_depends_on_the_content_is_named(frames) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x):
            is_bright = x.mean() > 0
            x = self.first(x)
            return self.last(self.second(x) if is_bright else x)

    bright = torch.ones(1, 3, *SIZE)
    selection = Selection(leave_first=0, leave_last=0)
    student = delta_network(
        Moody(), plan_conversion(Moody(), bright, selection, [StudentSpec("copy", scale=0.5)])
    ).eval()
    _, state = student(-bright)
    with pytest.raises(UserError, match=r"'second' runs on this frame but did not on its key frame.*path pattern"):
        student(bright, state)
    plain = [student(bright)[0]]
    for folding in ("never", "later"):  # a block may rest, also on the frame that folds the others
        student.folding, state, found = folding, student(bright)[1], []
        for frame in (-bright, bright, -bright):
            outputs, state = student(frame, state)
            found.append(outputs)
        plain = found if folding == "never" else plain
    assert gap(torch.stack(found), torch.stack(plain)) < 1e-5


class Branches(nn.Module):
    """Two branches, the second at half the first one's size, that exchange what they found, as HRNet's do."""

    class Exchange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
            fine, coarse = branches
            enlarged = nn.functional.interpolate(self.up(coarse), fine.shape[-2:])
            return [fine + enlarged, coarse + self.down(fine)]

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, stride=2)
        self.exchange = self.Exchange()

    def forward(self, frame):
        fine, coarse = self.exchange([self.fine(frame), self.coarse(frame)])
        return fine + nn.functional.interpolate(coarse, fine.shape[-2:])


@torch.no_grad()
@pytest.mark.parametrize("size", [(12, 90), (46, 13), (5, 7)])
def test_a_copy_keeps_the_ratios_of_its_branches(size: tuple[int, int]) -> None:
    frames = torch.randn(2, 1, 3, *size)
    plan = plan_conversion(Branches(), frames[0], Selection("block", ("exchange",)), [StudentSpec("copy", scale=0.5)])
    student = delta_network(Branches(), plan).eval()
    outputs, state = student(frames[0])
    assert torch.equal(student(frames[0], state)[0], outputs), "still"
    assert student(frames[1], state)[0].shape == (1, 4, *size)


@torch.no_grad()
def test_a_state_may_come_back_in_another_order(network, frames) -> None:
    block = Selection("block", ("two",))
    student = delta_network(
        Lists(), plan_conversion(Lists(), frames[0], block, [StudentSpec("copy", scale=0.5)])
    ).eval()
    _, state = student(frames[0])
    expected, _ = student(frames[1], state)
    assert torch.equal(student(frames[1], dict(reversed(state.items())))[0], expected)


def test_a_shared_block_is_saved_and_loaded(network, frames, tmp_path: Path) -> None:
    network.again = network.mix
    plan = plan_conversion(network, frames[0], Selection(), [StudentSpec()])
    student = delta_network(network, plan).eval().requires_grad_(False)
    save_student(tmp_path / "student.safetensors", student)
    again = load_student(tmp_path / "student.safetensors", copy.deepcopy(network))
    assert torch.equal(again(frames[0])[0], student(frames[0])[0])
    assert again.network.again is again.network.mix


def test_macs_fall_with_the_square_of_the_scale(network) -> None:
    example = torch.zeros(1, 3, 32, 48)
    plan = plan_conversion(network, example, Selection("network"), [StudentSpec("copy", scale=0.5)])
    (entry,) = plan.blocks
    assert entry.candidates[0].macs * 4 == entry.macs == count_macs(copy.deepcopy(network), example)


def test_senseless_specs_are_refused() -> None:
    for values in ({"scale": 0.0}, {"scale": 1.5}, {"reduction": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(values))} must be at"):
            StudentSpec(**values)
