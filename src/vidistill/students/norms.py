"""Batch normalisation during and after distillation."""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vidistill.students.delta.kinds import BlockStudent, Copy, norm_as_affine
from vidistill.students.delta.network import DeltaBlock
from vidistill.students.delta.separable import is_convertible_layer
from vidistill.students.student import Student


@dataclass(frozen=True)
class NormPair:
    """The paths of a layer and of the norm behind it. is_overwritten: something later changes the norm's output."""

    layer: str
    norm: str
    is_overwritten: bool


def norm_pairs(
    student: Student, layers: dict[str, nn.Module], norms: dict[str, nn.Module], example: Tensor
) -> list[NormPair]:
    """The pairs of a layer and a norm that are called once each, in that order, with nothing else using the layer's
    output: no operation, no view of it, and not as an output of the network.

    The network runs on `example` as a key frame. layers, norms: modules of it by their paths.
    """
    watch = _Watch()
    with _hooks(watch, layers, norms), watch:
        outputs, _ = student(example)
    for tensor in _tensors(outputs):
        watch.note_use(tensor)
    return [
        NormPair(layer, norm, is_overwritten=output._version != version)
        for norm, (layer, output, version) in watch.found.items()
        if watch.calls[layer] == watch.calls[norm] == 1 and not watch.uses[layer]
    ]


class _Watch(TorchDispatchMode):
    """Follows every layer's output by its memory, through all operations outside the layer and its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()  # of a layer's output, by other than its norm
        self.found: dict[str, tuple[str, Tensor, int]] = {}  # by norm: layer, the norm's output and its version
        self._owners: dict[int, tuple[str, torch.Size]] = {}  # by memory: whose output it is, and its shape
        self._inside = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*_tensors((args, kwargs))]
        if not self._inside:
            for tensor in given:
                self.note_use(tensor)
        outputs = func(*args, **(kwargs or {}))
        held = {_memory(tensor) for tensor in given}
        for tensor in _tensors(outputs):
            if _memory(tensor) not in held:
                self._owners.pop(_memory(tensor), None)  # whoever had this memory before is gone
        return outputs

    def note_use(self, tensor: Tensor) -> None:
        owner = self._owners.get(_memory(tensor))
        if owner is not None:
            self.uses[owner[0]] += 1

    def after_layer(self, path: str, output: Any) -> None:
        self.calls[path] += 1
        if isinstance(output, Tensor):
            self._owners[_memory(output)] = path, output.shape

    def before_norm(self) -> None:
        self._inside += 1

    def after_norm(self, path: str, given: Tensor, output: Tensor) -> None:
        self._inside -= 1
        self.calls[path] += 1
        owner = self._owners.get(_memory(given))
        if owner is not None and owner[1] == given.shape:
            self.found[path] = owner[0], output, output._version


@contextmanager
def _hooks(watch: _Watch, layers: dict[str, nn.Module], norms: dict[str, nn.Module]) -> Iterator[None]:
    handles = []
    for path, layer in layers.items():
        handles.append(layer.register_forward_hook(lambda _, __, output, path=path: watch.after_layer(path, output)))
    for path, norm in norms.items():
        handles.append(norm.register_forward_pre_hook(lambda *_: watch.before_norm()))
        handles.append(
            norm.register_forward_hook(lambda _, given, output, path=path: watch.after_norm(path, given[0], output))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


Network = TypeVar("Network", bound=nn.Module)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Its batch normalisations, of any number of dimensions."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def freeze_norms(module: nn.Module) -> None:
    """Puts every batch normalisation into evaluation mode: stored statistics are used and stay as they are."""
    for norm in batch_norms(module):
        norm.eval()


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


@torch.inference_mode(mode=False)
@torch.no_grad()
def fuse_norms(student: Student, example: Tensor) -> int:
    """Fuses each batch normalisation into the convolution or delta block ahead of it, in place; returns how many.

    student: obeys `outputs, state = student(frame, state)` and holds its network as `.network`, in evaluation mode.
    Exact: BN(z_0 + g(x_t − x_0)) = BN(z_0) + (s·g)(x_t − x_0). Only where the normalisation is the layer's sole
    consumer and both are called once; behind a delta block, which keeps its output, also only where nothing later
    changes the norm's output in place. The pairs are those of a key frame, and are the same in a block's copy.
    """
    while isinstance(student.network, Student):  # a window before a network that keeps state itself
        student, example = student.network, student.whole(example)
    modules = dict(student.network.named_modules())
    fused = 0
    for layer_path, norm_path in _fusible_pairs(modules, student, example):
        rest = _without_norm(modules[norm_path])
        if rest is not None and _fuse(modules[layer_path], modules[norm_path]):
            student.network.set_submodule(norm_path, rest)
            fused += 1
    for module in modules.values():
        if isinstance(module, BlockStudent):
            module.fuse()
    return fused


def _fusible_pairs(modules: dict[str, nn.Module], student: Student, example: Tensor) -> list[tuple[str, str]]:
    """The paths of the layers and norms that may become one, those of the blocks' copies included."""
    layers = {path: module for path, module in modules.items() if _is_layer(module)}
    norms = {path: module for path, module in modules.items() if _without_norm(module) is not None}
    pairs = []
    example = tree_map_only(
        Tensor, Tensor.clone, student.whole(example)
    )  # a clone of an inference tensor is a normal one
    for pair in norm_pairs(student, layers, norms, example):
        is_kept = isinstance(modules[pair.layer], DeltaBlock)
        block = _block_around(pair.layer, modules)
        if block != _block_around(pair.norm, modules) or (is_kept and pair.is_overwritten):
            continue
        pairs.append((pair.layer, pair.norm))
        if block is not None and isinstance(modules[_inside(block, "student")], Copy):
            ends = [path.removeprefix(_inside(block, "block.")) for path in (pair.layer, pair.norm)]
            pairs.append((_inside(block, f"student.network.{ends[0]}"), _inside(block, f"student.network.{ends[1]}")))
    return pairs


def _is_layer(module: nn.Module) -> bool:
    """A convolution, or the delta block of one, outside which the convolution itself cannot be seen."""
    return is_convertible_layer(module.block if isinstance(module, DeltaBlock) else module)


def _inside(block: str, path: str) -> str:
    return f"{block}.{path}" if block else path


def _block_around(path: str, modules: dict[str, nn.Module]) -> str | None:
    """The path of the delta block whose own network holds what is at `path`, if any."""
    outer = path
    while outer:
        outer = outer.rpartition(".")[0]
        if isinstance(modules[outer], DeltaBlock):
            return outer
    return None


def _without_norm(module: nn.Module) -> nn.Module | None:
    """What a normalisation with fixed statistics does beside normalising; None for any other module."""
    if not isinstance(module, nn.BatchNorm2d) or module.training or module.running_mean is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return nn.Identity()
    if type(module).__name__ == "BatchNormAct2d" and type(module).__module__.startswith("timm."):
        return nn.Sequential(module.get_submodule("drop"), module.get_submodule("act"))
    return None


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


def fused_copy(student: Student, example: Tensor) -> Student:
    """A copy of the student with its norms fused, for running; the student itself stays as it was trained."""
    fused = copy.deepcopy(student)
    fuse_norms(fused, example)
    return fused


@torch.inference_mode(mode=False)
@torch.no_grad()
def channels_last(network: Network) -> Network:
    """The network with its 2-D kernels laid out channels last, the layout in which narrow convolutions run fastest."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:  # torch has another layout for kernels over time
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network
