"""Which normalisation alone consumes which layer's output, as one run of a network shows it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidistill.distill.stateful import StatefulNetwork


@dataclass(frozen=True)
class NormPair:
    """The paths of a layer and of the norm behind it. is_overwritten: something later changes the norm's output."""

    layer: str
    norm: str
    is_overwritten: bool


def norm_pairs(
    student: StatefulNetwork, layers: dict[str, nn.Module], norms: dict[str, nn.Module], example: Tensor
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
