"""Batch normalisation during and after distillation."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidistill.distill.delta_network import DeltaLayer
from vidistill.distill.stateful import StatefulNetwork


def freeze_norms(module: nn.Module) -> None:
    """Puts every batch normalisation into evaluation mode: stored statistics are used and stay as they are."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block; every part's own mode comes back after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class _Tracer(fx.Tracer):
    """Stops at what fusion looks for."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, DeltaLayer) or super().is_leaf_module(module, qualified_name)


@torch.inference_mode(mode=False)
@torch.no_grad()
def fuse_norms(student: StatefulNetwork, example: Tensor) -> int:
    """Fuses each batch normalisation into the convolution or delta layer ahead of it, in place; returns how many.

    student: obeys `outputs, state = student(frame, state)` and holds its network as `.network`, in evaluation mode.
    Exact: BN(z_0 + g(x_t − x_0)) = BN(z_0) + (s·g)(x_t − x_0). Only where the normalisation is the layer's sole
    consumer, both are called once, and nothing later changes the norm's output in place, which a run on `example`
    shows. The pairs are found in the graph; a network that torch.fx cannot trace is left as it is.
    """
    network = student.network
    try:
        graph = _Tracer().trace(network)
    except Exception:  # tracing runs the user's forward on proxies, which may fail in any way
        return 0
    modules = dict(network.named_modules())
    calls = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == "call_module")
    overwritten = _overwritten_norms(student, example.clone())  # a clone of an inference tensor is a normal one
    fused = 0
    for node in graph.nodes:
        pair = _fusible_pair(node, modules)
        if pair is None or str(node.target) in overwritten or calls[id(pair[0])] > 1 or calls[id(pair[1])] > 1:
            continue
        if _fuse(*pair):
            network.set_submodule(str(node.target), nn.Identity())
            fused += 1
    return fused


def _fusible_pair(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """The layer and the norm, where `node` is a norm that alone consumes a layer's output."""
    if node.op != "call_module" or not _is_plain_norm(modules[str(node.target)]) or len(node.args) != 1:
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None
    return modules[str(source.target)], modules[str(node.target)]


def _overwritten_norms(student: StatefulNetwork, example: Tensor) -> set[str]:
    """The paths of the norms whose output is changed in place later in a run."""
    outputs: dict[str, tuple[Tensor, int]] = {}

    def hook(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({path: (output, output._version)})

    norms = {path: part for path, part in student.network.named_modules() if _is_plain_norm(part)}
    handles = [part.register_forward_hook(hook(path)) for path, part in norms.items()]
    try:
        student(example)
    finally:
        for handle in handles:
            handle.remove()
    return {path for path, (output, version) in outputs.items() if output._version != version}


def _is_plain_norm(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


def _fuse(layer: nn.Module, norm: nn.Module) -> bool:
    """Scales the layer's kernel, and its student's second one, by the normalisation; False where it is no 2-D layer."""
    conv = layer.layer if isinstance(layer, DeltaLayer) else layer
    if type(conv) is not nn.Conv2d:
        return False
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
    old_bias: Tensor | float = 0.0 if conv.bias is None else conv.bias
    conv.bias = nn.Parameter(old_bias * scale + shift, requires_grad=False)
    conv.weight.mul_(scale[:, None, None, None])
    if isinstance(layer, DeltaLayer):
        layer.last_kernel().mul_(scale[:, None, None, None])
    return True


def fused_copy(student: StatefulNetwork, example: Tensor) -> StatefulNetwork:
    """A copy of the student with its norms fused, for running; the student itself stays as it was trained."""
    fused = copy.deepcopy(student)
    fuse_norms(fused, example)
    return fused


def channels_last(student: StatefulNetwork) -> StatefulNetwork:
    """The student with its kernels laid out channels last, the layout in which narrow convolutions run fastest."""
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return student
