"""Batch normalisation during and after distillation."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidistill.distill.delta.network import DeltaBlock
from vidistill.distill.delta.separable import is_convertible_layer
from vidistill.distill.delta.students import BlockStudent, Copy, norm_as_affine
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


class _OneFrame(nn.Module):
    """A network under a plain signature, whatever its own; paths inside begin with `network.`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> Any:
        return self.network(frame)


class _Tracer(fx.Tracer):
    """Follows the key path, and stops at what fusion looks for."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        if isinstance(module, DeltaBlock):
            return is_convertible_layer(module.block)
        return super().is_leaf_module(module, qualified_name)


@torch.inference_mode(mode=False)
@torch.no_grad()
def fuse_norms(student: StatefulNetwork, example: Tensor) -> int:
    """Fuses each batch normalisation into the convolution or delta block ahead of it, in place; returns how many.

    student: obeys `outputs, state = student(frame, state)` and holds its network as `.network`, in evaluation mode.
    Exact: BN(z_0 + g(x_t − x_0)) = BN(z_0) + (s·g)(x_t − x_0). Only where the normalisation is the layer's sole
    consumer, both are called once, and nothing later changes the norm's output in place, which a run on `example`
    shows. The pairs are found in the key path's graph, and are the same in a block's copy; a network that torch.fx
    cannot trace is left as it is.
    """
    while isinstance(student.network, StatefulNetwork):  # a window before a network that keeps state itself
        student, example = student.network, student.whole(example)
    root = _OneFrame(student.network)
    modules = dict(root.named_modules())
    fused = 0
    for layer_path, norm_path in _fusible_pairs(root, modules, student, example):
        if _fuse(modules[layer_path], modules[norm_path]):
            root.set_submodule(norm_path, nn.Identity())
            fused += 1
    for module in modules.values():
        if isinstance(module, BlockStudent):
            module.fuse()
    return fused


def _fusible_pairs(
    root: nn.Module, modules: dict[str, nn.Module], student: StatefulNetwork, example: Tensor
) -> list[tuple[str, str]]:
    """The paths of the layers and norms that may become one, those of the blocks' copies included."""
    try:
        graph = _Tracer().trace(root)
    except Exception:  # tracing runs the user's forward on proxies, which may fail in any way
        return []
    calls = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == "call_module")
    overwritten = _overwritten_norms(
        modules, student, example.clone()
    )  # a clone of an inference tensor is a normal one
    pairs = []
    for node in graph.nodes:
        pair = _pair_at(node, modules)
        if pair is None or pair[1] in overwritten or any(calls[id(modules[path])] > 1 for path in pair):
            continue
        block = _block_around(pair[0], modules)
        if block != _block_around(pair[1], modules):
            continue
        pairs.append(pair)
        if block is not None and isinstance(modules[f"{block}.student"], Copy):
            inside = [path.removeprefix(f"{block}.block.") for path in pair]
            pairs.append((f"{block}.student.network.{inside[0]}", f"{block}.student.network.{inside[1]}"))
    return pairs


def _pair_at(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[str, str] | None:
    """The paths of the layer and the norm, where `node` is a norm that alone consumes a layer's output."""
    if node.op != "call_module" or not _is_plain_norm(modules[str(node.target)]) or len(node.args) != 1:
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None
    return str(source.target), str(node.target)


def _block_around(path: str, modules: dict[str, nn.Module]) -> str | None:
    """The path of the delta block whose own network holds what is at `path`, if any."""
    outer = path
    while outer:
        outer = outer.rpartition(".")[0]
        if isinstance(modules[outer], DeltaBlock):
            return outer
    return None


def _overwritten_norms(modules: dict[str, nn.Module], student: StatefulNetwork, example: Tensor) -> set[str]:
    """The paths of the norms whose output is changed in place later in a run."""
    outputs: dict[str, tuple[Tensor, int]] = {}

    def hook(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({path: (output, output._version)})

    norms = {path: part for path, part in modules.items() if _is_plain_norm(part)}
    handles = [part.register_forward_hook(hook(path)) for path, part in norms.items()]
    try:
        student(student.whole(example.clone()))  # of an inference tensor, a clone is a normal one
    finally:
        for handle in handles:
            handle.remove()
    return {path for path, (output, version) in outputs.items() if output._version != version}


def _is_plain_norm(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


def _fuse(layer: nn.Module, norm: nn.Module) -> bool:
    """Scales the layer's kernel, and its student's last one, by the normalisation; False where that cannot be."""
    conv = layer.block if isinstance(layer, DeltaBlock) else layer
    if type(conv) is not nn.Conv2d or (isinstance(layer, DeltaBlock) and not layer.student.is_scalable):
        return False
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = norm_as_affine(norm)
    old_bias: Tensor | float = 0.0 if conv.bias is None else conv.bias
    conv.bias = nn.Parameter(old_bias * scale + shift, requires_grad=False)
    conv.weight.mul_(scale[:, None, None, None])
    if isinstance(layer, DeltaBlock):
        layer.student.scale_outputs(scale)
    return True


def fused_copy(student: StatefulNetwork, example: Tensor) -> StatefulNetwork:
    """A copy of the student with its norms fused, for running; the student itself stays as it was trained."""
    fused = copy.deepcopy(student)
    fuse_norms(fused, example)
    return fused


@torch.inference_mode(mode=False)
@torch.no_grad()
def channels_last(student: StatefulNetwork) -> StatefulNetwork:
    """The student with its 2-D kernels laid out channels last, the layout in which narrow convolutions run fastest."""
    for tensor in (*student.parameters(), *student.buffers()):
        if tensor.ndim == 4:  # torch has another layout for kernels over time
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return student
