"""How converted blocks, anywhere inside a network, receive and return state without keeping any.

A tape is a plain object, no module and no buffer, that the blocks share and that only the wrapper binds, for the
length of one call. Key and delta frames become two specialisations of one forward for torch.export, ONNX and
torch.compile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from vidistill.errors import UserError
from vidistill.students.state import KEY, State

Folding = Literal["never", "later"]

WHOLE_SLOT = "whole"  # the slot of the whole network, where it is the one block


class Tape:
    """What blocks read and write: a slot for each of their calls, in each slot named tensors.

    folding: whether the key frame's inputs and outputs stay in the state (the form that trains), or are folded by the
    first frame after it.
    """

    def __init__(self) -> None:
        self.folding: Folding = "never"
        self.is_bound = False
        self.is_key_frame = True
        self.written: State = {}
        self.changes: dict[str, Tensor] | None = None
        self._read: dict[str, State] = {}
        self._calls: dict[str, int] = {}
        self._versions: dict[str, int] = {}

    @contextmanager
    def bound(self, state: State | None, folding: Folding) -> Iterator[State]:
        """Lends `state` to the blocks and yields the dict that they write to; empty again on exit."""
        written: State = {}
        self._bind(state, written, folding)
        self.is_bound = True
        try:
            yield written
        finally:
            self._bind(None, {}, "never")
            self.is_bound = False

    def _bind(self, state: State | None, written: State, folding: Folding) -> None:
        self.is_key_frame, self.written, self.folding = state is None, written, folding
        self._read, self._calls, self._versions = {}, {}, {}
        for name, tensor in (state or {}).items():
            slot, _, entry = name.rpartition("/")
            self._read.setdefault(slot, {})[entry] = tensor

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Collects each block's predicted change, by the name of the output that it is a change of, with gradient."""
        changes: dict[str, Tensor] = {}
        self.changes = changes
        try:
            yield changes
        finally:
            self.changes = None

    def slot(self, path: str) -> str:
        """The name of this call of the block at `path`: the path, then path#1, path#2 for further calls."""
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        return KEY + (f"{path}#{call}" if call else path)

    def read(self, slot: str) -> State:
        """What the key frame left in a slot. Errors: UserError where this call did not happen on the key frame."""
        if slot not in self._read:
            raise UserError(
                f"'{slot.removeprefix(KEY)}' runs on this frame but did not on its key frame: what the network runs "
                "depends on the frame's content; leave that block by a path pattern"
            )
        return self._read[slot]

    def keep(self, slot: str, entries: State) -> None:
        """Writes tensors to the state that the call leaves behind."""
        for entry, tensor in entries.items():
            name = f"{slot}/{entry}"
            self.written[name] = tensor
            # torch counts no modifications while compiling, nor of inference tensors
            if not torch.compiler.is_compiling() and not tensor.is_inference():
                self._versions[name] = tensor._version

    def carried_on(self, state: State) -> State:
        """The state with the slots that were written; what did not run on this frame keeps its own."""
        if not self.written:
            return state
        slots = {name.rpartition("/")[0] for name in self.written}
        kept = {name: tensor for name, tensor in state.items() if name.rpartition("/")[0] not in slots}
        return kept | self.written

    def overwritten(self) -> list[str]:
        """The kept tensors that the network has changed in place since, which would corrupt the frames to come."""
        return [name for name, version in self._versions.items() if self.written[name]._version != version]
