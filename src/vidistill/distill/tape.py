"""How converted layers, anywhere inside a network, receive and return state without keeping any.

A tape is a plain object, no module and no buffer, that the layers share and that only the wrapper binds, for the
length of one call. Key and delta frames become two specialisations of one forward for torch.export, ONNX and
torch.compile.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vidistill.distill.stateful import State


class Tape:
    """`read` is the state of the call, None on a key frame; `written` is what the call leaves behind."""

    def __init__(self) -> None:
        self.read: State | None = None
        self.written: State = {}
        self.changes: dict[str, Tensor] | None = None
        self._calls: dict[str, int] = {}
        self._versions: dict[str, int] = {}

    @contextmanager
    def bound(self, state: State | None) -> Iterator[State]:
        """Lends `state` to the layers and yields the dict that they write to; empty again on exit."""
        written: State = {}
        self.read, self.written, self._calls, self._versions = state, written, {}, {}
        try:
            yield written
        finally:
            self.read, self.written, self._calls, self._versions = None, {}, {}, {}

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Collects each converted layer's predicted change, by slot, with its gradient."""
        changes: dict[str, Tensor] = {}
        self.changes = changes
        try:
            yield changes
        finally:
            self.changes = None

    def slot(self, path: str) -> str:
        """The name of this call of the layer at `path`: the path, then path#1, path#2 for further calls."""
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        return f"{path}#{call}" if call else path

    def keep(self, name: str, tensor: Tensor) -> None:
        """Writes `tensor` to the state that the call leaves behind."""
        self.written[name] = tensor
        if _has_version(tensor):
            self._versions[name] = tensor._version

    def overwritten(self) -> list[str]:
        """The kept tensors that the network has changed in place since, which would corrupt the frames to come."""
        return [name for name, version in self._versions.items() if self.written[name]._version != version]


def _has_version(tensor: Tensor) -> bool:
    """Whether torch counts the tensor's modifications: not while compiling, nor in inference mode."""
    return not torch.compiler.is_compiling() and not tensor.is_inference()
