"""ONNX Runtime on the CPU. Tensors are bound where they lie: nothing of a state is copied."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidistill.errors import UserError
from vidistill.models.onnx_networks import open_session
from vidistill.runtimes.graphs import GraphRuntime, TensorSpec

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
        self._path = path
        self._session = open_session(path, threads=threads)
        self.inputs: Mapping[str, TensorSpec] = {value.name: _spec(value) for value in self._session.get_inputs()}
        self.outputs: Sequence[TensorSpec] = [_spec(value) for value in self._session.get_outputs()]
        self._names = [value.name for value in self._session.get_outputs()]

    def __deepcopy__(self, memo: object) -> "OnnxSession":
        return self  # it keeps nothing from run to run

    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        binding = self._session.io_binding()
        given = {name: tensor.contiguous() for name, tensor in inputs.items()}  # alive until the run has ended
        results = [torch.empty(spec.shape, dtype=spec.dtype) for spec in self.outputs]  # type: ignore[arg-type]
        try:
            for name, tensor in given.items():
                if name in self.inputs:
                    binding.bind_input(name, "cpu", 0, _numpy_type(tensor), tuple(tensor.shape), tensor.data_ptr())
            for name, tensor in zip(self._names, results, strict=True):
                binding.bind_output(name, "cpu", 0, _numpy_type(tensor), tuple(tensor.shape), tensor.data_ptr())
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime raises many types
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self._path}: ONNX Runtime cannot run it ({reason}); export the student again") from error
        return results


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(tuple(side if isinstance(side, int) else None for side in value.shape), TYPES.get(value.type))


def _numpy_type(tensor: Tensor) -> type:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
