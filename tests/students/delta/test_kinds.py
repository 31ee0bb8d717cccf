"""What every kind in the registry promises, on every block that it suits; and that nobody else looks at a kind."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.networks import settle_norms
from vidistill.ops.macs import count_macs
from vidistill.students.delta import kinds
from vidistill.students.delta.calls import Call, map_outputs, tensors_of
from vidistill.students.delta.kinds import CANDIDATES, KINDS, BlockStudent, StudentSpec, make_student, resolve

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "vidistill"


class Residual(nn.Module):
    """A block with a stride, a norm and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


class TwoSizes(nn.Module):
    """A block that takes and returns two images, the second at half the first one's size, and a number by name."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, images: list[Tensor], *, gain: float) -> dict[str, Tensor]:
        return {"fine": gain * self.fine(images[0]), "coarse": self.coarse(images[1])}


BLOCKS = {
    "convolution": nn.Conv2d(8, 16, 3, padding=1),
    "strided": nn.Conv2d(8, 16, (3, 1), stride=2),
    "grouped": nn.Conv2d(8, 16, 3, padding=1, groups=2, bias=False),
    "depthwise": nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "linear": nn.Linear(8, 16),
    "residual": settle_norms(Residual()),
    "several": TwoSizes(),
}
# all ranks are even: with an odd one and an odd frame oneDNN rounds the two halves of a batch differently, by a bit
SPECS = [{}, {"scale": 0.5}, {"reduction": 2}, {"rank": 4}]


def call_of(name: str) -> Call:
    """One frame, (2, 8, 10, 14) or tokens of 8 channels, for the block of that name."""
    if name == "several":
        return Call(([torch.randn(2, 8, 10, 14), torch.randn(2, 8, 5, 7)],), {"gain": 0.5})
    return Call((torch.randn(2, 6, 8) if name == "linear" else torch.randn(2, 8, 10, 14),), {})


def run(block: nn.Module, call: Call) -> object:
    with torch.no_grad():
        return block.eval()(*call.args, **call.kwargs)


def resolved(kind: str, options: dict[str, object], name: str) -> StudentSpec | str:
    call = call_of(name)
    return resolve(StudentSpec(kind, **options), BLOCKS[name], call, run(BLOCKS[name], call))


def cases() -> Iterator[pytest.param]:
    for kind in KINDS:
        specs = {(name, resolved(kind, options, name)) for options in SPECS for name in BLOCKS}
        suitable = [(name, spec) for name, spec in specs if isinstance(spec, StudentSpec)]
        for name, spec in sorted(suitable, key=str):
            yield pytest.param(name, spec, id=f"{spec} of {name}")


@pytest.fixture
def student(name: str, spec: StudentSpec) -> BlockStudent:
    """One whose weights do something: what starts at zero, or as the block itself, is shaken."""
    student = new_student(name, spec)
    with torch.no_grad():
        settle_norms(student)
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student.eval()


def new_student(name: str, spec: StudentSpec) -> BlockStudent:
    block, call = BLOCKS[name], call_of(name)
    axis = -1 if name == "linear" else 1
    channels = call.tensors()[0].shape[axis], tensors_of(run(block, call))[0].shape[axis]
    return make_student(spec, block, channels).eval()


def add(z_0: object, change: object) -> list[Tensor]:
    return tensors_of(map_outputs(torch.add, change, z_0))


def assert_same(found: object, expected: object) -> None:
    for tensor, other in zip(tensors_of(found), tensors_of(expected), strict=True):
        torch.testing.assert_close(tensor, other, atol=1e-5, rtol=1e-4)


every_kind = pytest.mark.parametrize("kind", KINDS)
every_case = pytest.mark.parametrize(("name", "spec"), list(cases()))


@every_kind
def test_a_kind_is_a_student_that_suits_some_blocks_and_says_why_not_the_others(kind: str) -> None:
    assert issubclass(KINDS[kind], BlockStudent)
    answers = [resolved(kind, options, name) for options in SPECS for name in BLOCKS]
    assert any(isinstance(answer, StudentSpec) for answer in answers)
    assert all(answer for answer in answers), "a reason is a text"
    assert isinstance(resolved(kind, {}, "several"), str) is not KINDS[kind].takes_several
    assert (ROOT / "docs" / "delta.md").read_text().count(f"\n| `{kind}` |") == 1


@every_case
def test_a_resolved_spec_is_decided(name: str, spec: StudentSpec) -> None:
    call = call_of(name)
    assert resolve(spec, BLOCKS[name], call, run(BLOCKS[name], call)) == spec
    assert str(spec).startswith(spec.kind)
    assert (spec.rank is not None) == KINDS[spec.kind].has_rank == ("channels" in str(spec))


@every_case
def test_making_leaves_the_block_alone(name: str, spec: StudentSpec) -> None:
    block = copy.deepcopy(BLOCKS[name]).to(torch.float64).requires_grad_(False)
    before = copy.deepcopy(block.state_dict())
    student = make_student(spec, block, (8, 16))
    student.start(block)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(7)
    assert all(torch.equal(tensor, before[key]) for key, tensor in block.state_dict().items())
    assert not {id(p) for p in student.parameters()} & {id(p) for p in block.parameters()}
    kernels = [parameter for parameter in student.parameters() if parameter.ndim > 1]
    assert all(kernel.dtype == torch.float64 and kernel.requires_grad for kernel in kernels)


@torch.no_grad()
@every_case
def test_what_is_saved_of_one_is_loaded_into_another(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    other = new_student(name, spec)
    other.load_state_dict(student.state_dict())
    key, now = call_of(name), call_of(name)
    z_0 = run(BLOCKS[name], key)
    changes = [tensors_of(one.change(key, now, z_0)) for one in (student, other)]
    assert all(torch.equal(first, second) for first, second in zip(*changes, strict=True))


@torch.no_grad()
@every_case
def test_both_ways_give_the_same_frame(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    key, now = call_of(name), call_of(name)
    z_0 = run(BLOCKS[name], key)
    folded = student.fold(key, z_0)
    assert not {"input", "output"} & {entry.partition(".")[0] for entry in folded}, "by these a block knows its form"
    assert all(isinstance(tensor, Tensor) and len(tensor) == 2 for tensor in folded.values()), "the batch first"
    change = student.change(key, now, z_0)
    assert [t.shape for t in tensors_of(change)] == [t.shape for t in tensors_of(z_0)]
    assert_same(student.follow(now, folded), add(z_0, change))


@torch.no_grad()
@every_case
@pytest.mark.parametrize("training", [False, True])
def test_a_still_clip_is_still(student: BlockStudent, name: str, spec: StudentSpec, training: bool) -> None:
    if training:
        student.set_training()
    key = call_of(name)
    z_0 = run(BLOCKS[name], key)
    assert all(not change.any() for change in tensors_of(student.change(key, key, z_0))), "to the bit"


@torch.no_grad()
@every_case
def test_frames_of_a_batch_are_independent(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    key, now = call_of(name), call_of(name)
    z_0 = run(BLOCKS[name], key)
    together = student.change(key, now, z_0)
    alone = student.change(
        key.map(lambda x: x[:1]), now.map(lambda x: x[:1]), map_outputs(lambda z, _: z[:1], z_0, z_0)
    )
    assert_same(alone, map_outputs(lambda dz, _: dz[:1], together, together))


@every_case
def test_a_change_trains_the_student(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    student.set_training()
    key, now = call_of(name), call_of(name)
    loss = sum(change.square().sum() for change in tensors_of(student.change(key, now, run(BLOCKS[name], key))))
    for entry, parameter in student.named_parameters():
        (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
        assert gradient is not None or entry.endswith("bias"), "a change does not feel what shifts both frames"


@torch.no_grad()
@every_case
def test_at_full_cost_a_student_starts_as_its_block(name: str, spec: StudentSpec) -> None:
    student = new_student(name, spec)
    student.start(BLOCKS[name])
    key, now = call_of(name), call_of(name)
    z_0, z_t = run(BLOCKS[name], key), run(BLOCKS[name], now)
    if student.is_full_cost:
        assert_same(add(z_0, student.change(key, now, z_0)), z_t)
        macs = count_macs(student.follow, now, student.fold(key, z_0))
        assert macs == count_macs(lambda: BLOCKS[name](*now.args, **now.kwargs))
    if not list(student.parameters()):
        assert count_macs(student.follow, now, student.fold(key, z_0)) == 0


@torch.no_grad()
@every_case
def test_fusing_its_own_norms_changes_no_output(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    key, now = call_of(name), call_of(name)
    z_0 = run(BLOCKS[name], key)
    expected, change = student.follow(now, student.fold(key, z_0)), student.change(key, now, z_0)
    student.fuse()
    student.fuse()  # a second time does nothing
    assert_same(student.follow(now, student.fold(key, z_0)), expected)
    assert_same(student.change(key, now, z_0), change)
    norms = [part for part in student.modules() if isinstance(part, nn.BatchNorm2d)]
    inside = [] if student.block_copy is None else list(student.block_copy.modules())
    assert all(any(norm is part for part in inside) for norm in norms), "those fuse with the block's"


@torch.no_grad()
@every_case
def test_a_norm_behind_the_block_fuses_into_the_student(student: BlockStudent, name: str, spec: StudentSpec) -> None:
    key, now = call_of(name), call_of(name)
    z_0 = run(BLOCKS[name], key)
    factor = torch.rand(tensors_of(z_0)[0].shape[1]) + 0.5
    if not student.is_scalable:
        with pytest.raises(NotImplementedError):
            student.scale_outputs(factor)
    elif isinstance(BLOCKS[name], nn.Conv2d):  # the only blocks that norms fuse into
        scaled = factor[:, None, None] * student.change(key, now, z_0)
        student.scale_outputs(factor)
        assert_same(student.change(key, now, factor[:, None, None] * z_0), scaled)


@every_case
def test_a_copy_of_the_block_has_its_parts(name: str, spec: StudentSpec) -> None:
    student = new_student(name, spec)
    if student.block_copy is not None:
        parts = {path: type(part) for path, part in BLOCKS[name].named_modules()}
        assert {path: type(part) for path, part in student.block_copy.named_modules()} == parts
    if student.distils_features:
        assert any(isinstance(part, nn.Conv2d | nn.Linear) for part in student.modules())


def test_groups_must_divide_a_rank_that_is_asked_for_too() -> None:
    assert resolved("separable", {"rank": 3}, "grouped") == "its 2 groups do not divide the bottleneck's 3 channels"


def test_unknown_kinds_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"unknown student kind 'separabel'; did you mean separable\?"):
        StudentSpec("separabel")
    with pytest.raises(ValueError, match=f"unknown student kind 'x'; choose one of: {', '.join(KINDS)}"):
        StudentSpec("x")


def test_a_search_offers_a_choice() -> None:
    assert len(set(CANDIDATES)) == len(CANDIDATES) > 1


def test_nobody_else_looks_at_a_kind() -> None:
    """No name of a kind, and no class of one, in whatever knows of block students."""
    package = Path(kinds.__file__).parent
    classes = {
        node.name
        for path in package.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    } - {BlockStudent.__name__, StudentSpec.__name__}
    assert {kind.__name__ for kind in KINDS.values()} <= classes
    known = 0
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if path.parent == package or not any("students.delta" in (node.module or "") for node in imports):
            continue
        known += 1
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not texts & set(KINDS), f"{path} names a kind"
        names = {alias.name for node in imports for alias in node.names}
        assert not names & classes, f"{path} imports the class of a kind"
    assert known > 10
