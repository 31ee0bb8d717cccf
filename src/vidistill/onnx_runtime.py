"""ONNX Runtime: graphs, and exported students as networks with state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidistill.errors import UserError

NEXT = "next/"  # ahead of the name of a state tensor that the next frame needs anew


State = dict[str, Tensor]


class OnnxStudent:
    """`outputs, state = student(frame, state)`, as the network that `vidistill export` wrote, on the CPU.

    key, delta: its files; without key frames there is only the first. outputs: the network's tensors in order.
    threads: 0 for the runtime's own choice. Errors: UserError where ONNX Runtime is missing or cannot read a file.
    """

    def __init__(self, key: Path, delta: Path | None, *, threads: int = 0) -> None:
        self._key = open_session(key, threads=threads)
        self._delta = None if delta is None else open_session(delta, threads=threads)

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


def open_session(path: str | Path, *, threads: int = 0) -> Any:
    """ONNX Runtime's session of a graph, on the CPU. Errors: UserError where it is missing or cannot read the file."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed; pip install 'vidistill[export]'") from error
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file; give the path of an ONNX network")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow what runs beside
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises of many kinds
        raise UserError(f"{path}: is not a network in ONNX ({' '.join(str(error).split())[:200]})") from error
