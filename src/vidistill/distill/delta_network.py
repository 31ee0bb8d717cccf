"""A network whose converted layers predict their change since the key frame."""

import copy
from typing import Any

from torch import Tensor, nn

from vidistill.distill.conversion import Plan, replace_layers
from vidistill.distill.separable import ConvertibleLayer, start_from
from vidistill.distill.stateful import KEY, State, StatefulNetwork
from vidistill.distill.tape import Tape
from vidistill.errors import UserError


class DeltaLayer(nn.Module):
    """A linear block: the layer itself on a key frame, its cheap student on the frames after it.

    With x_0 and z_0 the key frame's input and output, z_t = z_0 + g(x_t − x_0). As g is linear and has no bias, that
    is g(x_t) + c with c = z_0 − g(x_0): the folded form, which keeps one tensor and subtracts nothing. Which of the two
    runs is decided by what the state holds.
    """

    def __init__(self, path: str, layer: ConvertibleLayer, student: nn.Sequential, tape: Tape) -> None:
        super().__init__()
        self.path = path
        self.layer = layer
        self.student = student
        self.tape = tape

    def forward(self, x: Tensor) -> Tensor:
        tape = self.tape
        name = KEY + tape.slot(self.path)
        if tape.read is None:
            output = self.layer(x)
            tape.keep(f"{name}.input", x)
            tape.keep(f"{name}.output", output)
            return output
        if f"{name}.offset" in tape.read:
            return self.student(x) + tape.read[f"{name}.offset"]
        change = self.student(x - tape.read[f"{name}.input"])
        if tape.changes is not None:
            tape.changes[name] = change
        return tape.read[f"{name}.output"] + change

    def last_kernel(self) -> Tensor:
        """The kernel of the student's last layer: scaling its first axis scales the student's output channels."""
        last = self.student[-1]
        assert isinstance(last, nn.Conv2d | nn.Linear)
        return last.weight

    def fold(self, key_input: Tensor, key_output: Tensor) -> Tensor:
        """The constant c of the folded form."""
        return key_output - self.student(key_input)


class DeltaNetwork(StatefulNetwork):
    """`outputs, state = network(frame, state)`; without a state the frame is a key frame.

    A key frame's state holds each converted layer's input and output. Where `folds` is set, as `finish` does, the
    first delta frame folds them into one tensor a layer before it runs, so that no frame costs more than a key frame
    by much; otherwise the state stays as the key frame left it, which is the form that trains.
    """

    def __init__(self, network: nn.Module, plan: Plan, tape: Tape, *, folds: bool = False) -> None:
        super().__init__()
        self.network = network
        self.plan = plan
        self.tape = tape
        self.folds = folds

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if state is not None and self.folds:
            state = self.fold(state)
        with self.tape.bound(state) as written:
            outputs = self.network(frame)
            if state is not None:
                return outputs, state
            overwritten = self.tape.overwritten()
            if overwritten:
                raise UserError(
                    f"the network changes the kept tensor '{overwritten[0]}' in place; leave that layer by a path "
                    "pattern, or use an operation that returns a new tensor"
                )
            return outputs, written

    def fold(self, state: State) -> State:
        """The state with every kept input and output replaced by the folded constant; itself where that is done."""
        outputs = [name for name in state if name.startswith(KEY) and name.endswith(".output")]
        if not outputs:
            return state
        layers = self.delta_layers()
        folded = {name: tensor for name, tensor in state.items() if not name.endswith((".input", ".output"))}
        for name in outputs:
            slot = name.removesuffix(".output")
            layer = layers[slot.removeprefix(KEY).split("#")[0]]
            folded[f"{slot}.offset"] = layer.fold(state[f"{slot}.input"], state[name])
        return folded

    def delta_layers(self) -> dict[str, DeltaLayer]:
        """The converted layers by the path they had in the network."""
        return {module.path: module for module in self.network.modules() if isinstance(module, DeltaLayer)}


def convert(network: nn.Module, plan: Plan, *, start: bool = True) -> DeltaNetwork:
    """A delta network on a copy of `network`, its students started from the layers' weights unless `start` is False."""
    network = copy.deepcopy(network)
    tape = Tape()
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010 - an activation in place would overwrite what the layer before it keeps

    def make(path: str, layer: ConvertibleLayer, student: nn.Sequential) -> nn.Module:
        if start:
            start_from(student, layer)
        return DeltaLayer(path, layer, student, tape)

    replace_layers(network, plan, make)
    return DeltaNetwork(network, plan, tape)
