"""Batch normalisations: frozen while a student trains, fused into the layers ahead of them when it runs.

Which may be fused is seen in one run of the network, not in a traced graph: so control flow, detectors and the networks
of any library fuse alike.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vidistill.models.outputs import largest_gap
from vidistill.ops.modules import copied, evaluating
from vidistill.students.delta.calls import Tree, tensors_of
from vidistill.students.delta.kinds import BlockStudent
from vidistill.students.delta.layers import is_convertible_layer, norm_as_affine
from vidistill.students.delta.network import DeltaBlock
from vidistill.students.student import Student
from vidistill.students.trial import TOLERANCE, noisy, own_layers, stream_outputs

Network = TypeVar("Network", bound=nn.Module)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Its batch normalisations, of any number of dimensions."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def freeze_norms(module: nn.Module) -> None:
    """Puts every batch normalisation into evaluation mode: stored statistics are used and stay as they are."""
    for norm in batch_norms(module):
        norm.eval()


@torch.inference_mode(mode=False)
@torch.no_grad()
def laid_out(network: Network, layout: torch.memory_format) -> Network:
    """The network with its 2-D kernels in a layout; channels last is where narrow convolutions run fastest."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:  # torch has another layout for kernels over time
            tensor.data = tensor.data.contiguous(memory_format=layout)
    return network


def channels_last(network: Network, example: Tensor) -> Network:
    """The network with its kernels channels last; contiguous where it does not run so, as with `.view()`."""
    laid_out(network, torch.channels_last)
    try:
        with evaluating(network), torch.no_grad():
            network(example)
    except RuntimeError:
        laid_out(network, torch.contiguous_format)
    return network


def fused_copy(student: Student, example: Tree) -> Student:
    """A copy of the student in evaluation mode with its norms fused, for running; the student itself stays as it is."""
    return running_copy(student, example, layouts=(torch.contiguous_format,))


def running_copy(
    student: Student,
    example: Tree,
    *,
    layouts: Sequence[torch.memory_format] = (torch.channels_last, torch.contiguous_format),
) -> Student:
    """A copy in evaluation mode as it runs: its norms fused, its kernels in the first of the layouts that it can have.

    It is compared with the student itself, on a key frame and a later one: where it differs, as where a kernel is made
    anew from others whenever it runs, nothing is fused; where it does not run, as with a `.view()` of features that are
    laid out channels last, it gets the next layout.
    """
    plain = copied(student).eval()
    whole = plain.whole(example) if isinstance(example, Tensor) else example
    frames = noisy(whole, 2 if plain.has_key_frames else 1)
    with own_layers(plain):
        wanted = stream_outputs(plain, frames)
    for fuses, layout in product((True, False), layouts):
        try:
            running = copied(plain)
            if fuses:
                fuse_norms(running, example)
            laid_out(running, layout).layout = layout
            found = stream_outputs(running, [tree_map_only(Tensor, running.laid_out, frame) for frame in frames])
        except Exception:
            continue
        if largest_gap(wanted, found) < TOLERANCE or (fuses and _is_rounding(plain, example, frames)):
            return running
    return plain


def _is_rounding(plain: Student, example: Tree, frames: list[Tree]) -> bool:
    """Whether fusing changes nothing where numbers are exact: a detector may choose another box for its last digit."""
    doubled = copied(plain).double()
    fused = copied(doubled)
    example, *frames = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, [example, *frames])
    try:
        fuse_norms(fused, example)
        return largest_gap(stream_outputs(doubled, frames), stream_outputs(fused, frames)) < TOLERANCE
    except Exception:  # a network with numbers of its own precision
        return False


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
    fused = 0
    for pair in _fusible_pairs(student, example):
        layer, norm = pair.holder.get_submodule(pair.layer), pair.holder.get_submodule(pair.norm)
        rest = _without_norm(norm)
        if rest is not None and _fuse(layer, norm):
            pair.holder.set_submodule(pair.norm, rest)
            fused += 1
    for module in student.network.modules():
        if isinstance(module, BlockStudent):
            module.fuse()
    return fused


class _Pair(NamedTuple):
    """The paths of a layer and of the norm behind it, in the module that holds both."""

    holder: nn.Module
    layer: str
    norm: str


def _fusible_pairs(student: Student, example: Tensor) -> list[_Pair]:
    """The layers and norms that may become one, those of the copies of blocks included."""
    network = student.network
    students = tuple(f"{path}." for path, module in network.named_modules() if isinstance(module, BlockStudent))
    modules = {path: module for path, module in network.named_modules() if not f"{path}.".startswith(students)}
    layers = {  # convolutions, or the delta block of one, outside which the convolution itself cannot be seen
        path: module
        for path, module in modules.items()
        if _is_scalable(module.block if isinstance(module, DeltaBlock) else module)
    }
    norms = {path: module for path, module in modules.items() if _without_norm(module) is not None}
    watch = _Watch()
    with _hooks(watch, layers, norms), watch:
        # a clone of an inference tensor is a normal one
        outputs, _ = student(tree_map_only(Tensor, Tensor.clone, student.whole(example)))
    for tensor in tensors_of(outputs):
        watch.note_use(tensor)
    pairs = []
    for layer, norm, is_overwritten in watch.sole_readers():
        block = _block_around(layer, modules)
        if block != _block_around(norm, modules) or (isinstance(modules[layer], DeltaBlock) and is_overwritten):
            continue
        pairs.append(_Pair(network, layer, norm))
        outer = None if block is None else modules[block]
        if isinstance(outer, DeltaBlock) and outer.student.block_copy is not None:
            inside = f"{block}.block." if block else "block."
            pairs.append(_Pair(outer.student.block_copy, layer.removeprefix(inside), norm.removeprefix(inside)))
    return pairs


def _block_around(path: str, modules: dict[str, nn.Module]) -> str | None:
    """The path of the delta block whose own network holds what is at `path`, if any."""
    outer = path
    while outer:
        outer = outer.rpartition(".")[0]
        if isinstance(modules[outer], DeltaBlock):
            return outer
    return None


def _is_scalable(module: nn.Module) -> bool:
    """Whether it is a layer whose output its own kernel and bias decide: neither is derived from other tensors, as by
    `weight_norm` or a pruning, and no hook changes what comes out."""
    if not is_convertible_layer(module) or module._forward_hooks or "forward" in vars(module):
        return False
    return module._parameters.get("weight") is not None and "bias" in module._parameters


def _without_norm(module: nn.Module) -> nn.Module | None:
    """What a normalisation with fixed statistics does beside normalising; None for any other module, and for one that
    hooks or a forward of its own may change."""
    if not isinstance(module, nn.BatchNorm2d) or module.training or module.running_mean is None:
        return None
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
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
    scale, shift = norm_as_affine(norm)  # (C_out,) each
    old_bias: Tensor | float = 0.0 if conv.bias is None else conv.bias
    conv.bias = nn.Parameter(old_bias * scale + shift, requires_grad=False)
    # a new kernel, for others may hold the old one, or a part of its memory
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    if isinstance(layer, DeltaBlock):
        layer.student.scale_outputs(scale)
    return True


class _Watch(TorchDispatchMode):
    """Follows every layer's output by its memory, through all operations outside the layer and its norm."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()  # of a layer's output, by other than its norm
        self._pairs: dict[str, tuple[str, Tensor, int]] = {}  # by norm: layer, the norm's output and its version
        self._owners: dict[int, tuple[str, torch.Size]] = {}  # by memory: whose output it is, and its shape
        self._norms_running = 0

    def sole_readers(self) -> Iterator[tuple[str, str, bool]]:
        """Each layer and norm that are called once each, in that order, with nothing else using the layer's output: no
        operation, no view of it; and whether something later changed the norm's output in place."""
        for norm, (layer, output, version) in self._pairs.items():
            if self._calls[layer] == self._calls[norm] == 1 and not self._uses[layer]:
                yield layer, norm, output._version != version

    def __torch_dispatch__(
        self,
        func: Callable[..., Tree],
        types: object,
        args: tuple[Tree, ...] = (),
        kwargs: dict[str, Tree] | None = None,
    ) -> Tree:
        inputs = tensors_of((args, kwargs))
        if not self._norms_running:
            for tensor in inputs:
                self.note_use(tensor)
        outputs = func(*args, **(kwargs or {}))
        held = {_memory(tensor) for tensor in inputs}
        for tensor in tensors_of(outputs):
            if _memory(tensor) not in held:
                self._owners.pop(_memory(tensor), None)  # whoever had this memory before is gone
        return outputs

    def note_use(self, tensor: Tensor) -> None:
        """Notes that something other than its norm reads a tensor."""
        owner = self._owners.get(_memory(tensor))
        if owner is not None:
            self._uses[owner[0]] += 1

    def after_layer(self, path: str, output: Tree) -> None:
        self._calls[path] += 1
        if isinstance(output, Tensor):
            self._owners[_memory(output)] = path, output.shape

    def before_norm(self) -> None:
        self._norms_running += 1

    def after_norm(self, path: str, normalised: Tensor, output: Tensor) -> None:
        self._norms_running -= 1
        self._calls[path] += 1
        owner = self._owners.get(_memory(normalised))
        if owner is not None and owner[1] == normalised.shape:
            self._pairs[path] = owner[0], output, output._version


@contextmanager
def _hooks(watch: _Watch, layers: dict[str, nn.Module], norms: dict[str, nn.Module]) -> Iterator[None]:
    handles = []
    for path, layer in layers.items():
        handles.append(layer.register_forward_hook(lambda _, __, output, path=path: watch.after_layer(path, output)))
    for path, norm in norms.items():
        handles.append(norm.register_forward_pre_hook(lambda *_: watch.before_norm()))
        handles.append(
            norm.register_forward_hook(lambda _, args, output, path=path: watch.after_norm(path, args[0], output))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
