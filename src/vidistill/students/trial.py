"""Trying what was made of a network: on frames of noise, beside the network itself.

Rules know the networks that were thought of. What a trial shows to differ, or not to run, is taken back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs
from vidistill.ops.modules import copied, first_line, is_out_of_memory, same_draws
from vidistill.students.delta.calls import Tree
from vidistill.students.delta.plan import Plan
from vidistill.students.networks import bare, running_on
from vidistill.students.state import State
from vidistill.students.student import Student

TOLERANCE = 1e-4  # of an output's scale

# converts by a plan and runs; returns why blocks cannot be, by their paths, or raises whatever the network raises
Attempt = Callable[[Plan], dict[str, str]]


def noisy(example: Tree, count: int) -> list[Tree]:
    """Frames like the example, each with noise of its own, since an example may be black."""
    generator = torch.Generator().manual_seed(0)

    def with_noise(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator).to(x.device, x.dtype)
        return x + noise if x.is_floating_point() else x

    return [tree_map_only(Tensor, with_noise, example) for _ in range(count)]


def stream_outputs(student: Student, frames: list[Tree]) -> list[NetworkOutputs]:
    """The outputs of a key frame and of the frames after it; a network that draws random numbers draws the same."""
    outputs = []
    state: State | None = None
    with torch.no_grad(), same_draws():
        for frame in frames:
            # a clone of an inference tensor is a normal one
            output, state = student(tree_map_only(Tensor, Tensor.clone, frame), state or None)
            outputs.append(output)
    return outputs


@contextmanager
def own_layers(network: nn.Module) -> Iterator[None]:
    """For a run of a copy of a network.

    Raises:
        UserError: a layer runs whose weights are not among the network's, as one in a plain list or a closure.
    """
    own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}

    def check(module: nn.Module, args: object) -> None:
        if any(id(tensor) not in own for tensor in (*module.parameters(), *module.buffers())):
            raise UserError(
                f"the network runs a {type(module).__name__} that is not among its modules, so that its "
                "weights are neither trained nor saved; keep it as an attribute or in an nn.ModuleList, not in a plain "
                "list or a lambda"
            )

    with _before_each_module(check):
        yield


@contextmanager
def modules_that_run() -> Iterator[set[int]]:
    """Collects the ids of the modules that run. Hooks of their own would change what torch's encoder layers run."""
    ran: set[int] = set()
    with _before_each_module(lambda module, args: ran.add(id(module))):
        yield ran


@contextmanager
def _before_each_module(hook: Callable[[nn.Module, object], None]) -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def reference_outputs(network: nn.Module, frames: list[Tree]) -> list[NetworkOutputs]:
    """What a copy of the network in evaluation mode gives, frame by frame.

    Raises:
        UserError: it cannot be copied, does not run on a frame, or runs layers that are not its own.
    """
    network = copied(bare(network)).eval()
    outputs = []
    for frame in frames:
        with torch.no_grad(), same_draws(), own_layers(network), running_on(network, frame):
            outputs.append(network(frame))
    return outputs


def settled(plan: Plan, attempt: Attempt) -> Plan:
    """The plan without the blocks that show, when they are converted, that they cannot be; each with its reason."""
    while plan.converted:
        reasons = _reasons(plan, attempt)
        if not reasons:
            break
        plan = _leaving(plan, reasons)
    return plan


def _reasons(plan: Plan, attempt: Attempt) -> dict[str, str]:
    """Why blocks cannot be converted; where the network raises an error, the halves of the plan are tried alone."""
    try:
        return attempt(plan)
    except Exception as error:  # a network that meets other blocks than its own may fail in any way
        if is_out_of_memory(error):
            raise
        paths = [block.path for block in plan.converted]
        if len(paths) == 1:
            return {paths[0]: f"the network does not run with it converted ({first_line(error)})"}
        middle = len(paths) // 2
        halves = (paths[:middle], paths[middle:])
        found: dict[str, str] = {}
        for other in reversed(halves):
            found |= _reasons(_leaving(plan, dict.fromkeys(other, "")), attempt)
        return found or dict.fromkeys(halves[1], f"the network does not run with all converted ({first_line(error)})")


def _leaving(plan: Plan, reasons: dict[str, str]) -> Plan:
    blocks = [replace(b, candidates=(), reason=reasons[b.path]) if b.path in reasons else b for b in plan.blocks]
    return Plan(tuple(blocks))
