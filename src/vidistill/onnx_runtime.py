"""An exported student in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidistill.distill.stateful import State
from vidistill.errors import UserError

NEXT = "next/"  # ahead of the name of a state tensor that the next frame needs anew


class OnnxStudent:
    """`outputs, state = student(frame, state)`, as the network that `vidistill export` wrote, on the CPU.

    key, delta: its files; without key frames there is only the first. outputs: the network's tensors in order.
    threads: 0 for the runtime's own choice. Errors: UserError where ONNX Runtime is missing or cannot read a file.
    """

    def __init__(self, key: Path, delta: Path | None, *, threads: int = 0) -> None:
        self._key = _session(key, threads)
        self._delta = None if delta is None else _session(delta, threads)

    def __call__(self, frame: Tensor, state: State | None = None) -> tuple[list[Tensor], State]:
        if not state or self._delta is None:
            found = self._run(self._key, {"frame": frame})
            kept: State = {}
        else:
            found = self._run(self._delta, {"frame": frame, **state})
            kept = dict(state)
        outputs = [found.pop(name) for name in list(found) if name.split(".")[0] == "output"]
        return outputs, kept | {name.removeprefix(NEXT): tensor for name, tensor in found.items()}

    @staticmethod
    def _run(session: Any, tensors: State) -> State:
        wanted = {value.name: tensors[value.name].numpy() for value in session.get_inputs()}
        names: Sequence[str] = [value.name for value in session.get_outputs()]
        found: Sequence[np.ndarray] = session.run(None, wanted)
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("this needs ONNX Runtime; pip install 'vidistill[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no one class for its errors
        raise UserError(f"{path}: ONNX Runtime cannot read it ({str(error).splitlines()[0][:160]})") from error
