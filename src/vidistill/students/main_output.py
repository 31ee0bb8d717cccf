"""Networks that return more in training than in evaluation, as those with auxiliary heads do."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs, largest_gap, named_tensors, parts_of
from vidistill.ops.modules import copied, evaluating, same_draws
from vidistill.students.trial import TOLERANCE, noisy, reference_outputs

NAME = "output"


class _Main:
    """A forward hook: of several outputs in training the main one. place: its index or name."""

    def __init__(self, place: int | str) -> None:
        self.place = place

    def __call__(self, network: nn.Module, args: object, outputs: NetworkOutputs) -> NetworkOutputs:
        return outputs[self.place] if network.training else outputs


class _Named:
    """As `_Main`, of a mapping that only has more entries in training. names: those in evaluation."""

    def __init__(self, names: tuple[object, ...]) -> None:
        self.names = names

    def __call__(self, network: nn.Module, args: object, outputs: NetworkOutputs) -> NetworkOutputs:
        return {name: outputs[name] for name in self.names} if network.training else outputs


def with_main_output(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy that returns in training what it returns in evaluation; the network itself where that needs nothing.

    Which of its outputs in training is the main one is seen in a run: the one that equals evaluation's, with layers as
    in evaluation and only the network and its parts in training.

    Raises:
        UserError: none does; or the network cannot run, see `reference_outputs`.
    """
    frames = noisy(example, 1)
    (wanted,) = reference_outputs(network, frames)
    with evaluating(network), torch.no_grad():
        for part in network.modules():
            is_layer = isinstance(part, nn.modules.batchnorm._BatchNorm) or not any(True for _ in part.children())
            part.training = not is_layer and not type(part).__module__.startswith("torch.nn.")
        try:
            with same_draws():
                trained = network(*frames)
        except Exception:  # it may want its targets in training, which the first step will say
            return network
    if type(trained) not in (list, tuple, dict, OrderedDict) or {*named_tensors(wanted, NAME)} == {
        *named_tensors(trained, NAME)
    }:
        return network
    hook: _Main | _Named | None = None
    if isinstance(wanted, dict) and isinstance(trained, dict) and {*wanted} <= {*trained}:
        hook = _Named(tuple(wanted))
    else:
        parts = parts_of(trained) or {}
        same = [name for name, part in parts.items() if _has_tensors(part) and largest_gap(wanted, part) < TOLERANCE]
        hook = _Main(same[0]) if same else None
    if hook is None:
        raise UserError(
            f"{type(network).__name__} returns a {type(trained).__name__} of {len(trained)} in training, in which its "
            f"output in evaluation is not found; return the logits alone, or as {{'out': logits, …}}"
        )
    network = copied(network)
    network.register_forward_hook(hook)
    return network


def _has_tensors(part: object) -> bool:
    return bool(named_tensors(part, NAME))
