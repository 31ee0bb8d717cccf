"""ONNX Runtime on the CPU. Tensors are bound where they lie: nothing of a state is copied."""

import shutil
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vidistill.models.onnx_networks import open_session
from vidistill.runtimes.graphs import FRAME, GraphRuntime

TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


class Onnx(GraphRuntime):
    """ONNX Runtime on the CPU, in float32. Graphs are for frames of one size."""

    name: ClassVar = "onnx"
    precisions: ClassVar = ("float32",)
    suffix: ClassVar = ".onnx"
    packages: ClassVar = ("onnxruntime", "onnxscript")
    parity: ClassVar = {"float32": 1e-4}

    def convert(self, traced: Path, path: Path) -> None:
        shutil.copyfile(traced, path)

    def open(self, path: Path, *, precision: str, threads: int) -> "OnnxSession":
        return OnnxSession(path, threads=threads)


class OnnxSession:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._session = open_session(path, threads=threads)
        self._outputs = [(v.name, TYPES[v.type], tuple(v.shape)) for v in self._session.get_outputs()]

    def __deepcopy__(self, memo: object) -> "OnnxSession":
        return self  # it keeps nothing from run to run

    def frame_shape(self) -> tuple[int, ...]:
        return next(tuple(value.shape) for value in self._session.get_inputs() if value.name == FRAME)

    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        binding = self._session.io_binding()
        given = {name: tensor.contiguous() for name, tensor in inputs.items()}  # alive until the run has ended
        for name, tensor in given.items():
            binding.bind_input(name, "cpu", 0, _numpy_type(tensor), tuple(tensor.shape), tensor.data_ptr())
        results = [torch.empty(shape, dtype=dtype) for _, dtype, shape in self._outputs]
        for (name, _, shape), tensor in zip(self._outputs, results, strict=True):
            binding.bind_output(name, "cpu", 0, _numpy_type(tensor), shape, tensor.data_ptr())
        self._session.run_with_iobinding(binding)
        return results


def _numpy_type(tensor: Tensor) -> type:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
