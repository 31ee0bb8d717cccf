"""OpenVINO on the CPU, in float32 or bfloat16. Tensors are shared with it: nothing of a state is copied."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidistill.errors import UserError
from vidistill.runtimes.graphs import GraphRuntime, TensorSpec

TYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "i64": torch.int64,
    "i32": torch.int32,
    "u8": torch.uint8,
    "boolean": torch.bool,
}
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # what it computes in; what goes in and out keeps its type


class OpenVino(GraphRuntime):
    """OpenVINO on the CPU. Graphs are for frames of one size.

    bfloat16 is what a CPU with AMX or AVX-512 BF16 computes in by itself, and many times faster than float32 there.
    """

    name: ClassVar = "openvino"
    precisions: ClassVar = tuple(PRECISIONS)
    suffix: ClassVar = ".xml"
    packages: ClassVar = ("openvino", "onnxscript")
    parity: ClassVar = {"float32": 1e-4, "bfloat16": 0.1}

    def convert(self, traced: Path, path: Path) -> None:
        import openvino

        try:
            model = _core().read_model(traced)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            reason = next((line for line in lines if line.startswith("--")), lines[-1]).strip("- ")
            reason += next((f": {line}" for line in lines if "ONNX node" in line or "operator" in line.lower()), "")
            raise UserError(
                f"OpenVINO cannot run the network ({reason[:300]}); choose runtime onnx or eager"
            ) from error
        openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, path: Path, *, precision: str, threads: int) -> "OpenVinoSession":
        return OpenVinoSession(path, precision=precision, threads=threads)


class OpenVinoSession:
    """A graph that OpenVINO has compiled for this machine."""

    def __init__(self, path: Path, *, precision: str, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError("openvino is not installed; pip install 'vidistill[export]'") from error
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = _core().read_model(path)
            self._request = _core().compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{path}: cannot be run by OpenVINO ({reason}); export the student again") from error
        self._path = path
        self._tensor = openvino.Tensor
        compiled = self._request.get_compiled_model()
        self._ports = {name: port for port in compiled.inputs for name in port.get_names()}
        self.inputs: Mapping[str, TensorSpec] = {name: _spec(port) for name, port in self._ports.items()}
        self.outputs: Sequence[TensorSpec] = [_spec(port) for port in compiled.outputs]

    def __deepcopy__(self, memo: object) -> "OpenVinoSession":
        return self  # it keeps nothing from run to run

    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        given = {name: tensor.contiguous() for name, tensor in inputs.items()}  # alive until the run has ended
        results = [torch.empty(spec.shape, dtype=spec.dtype) for spec in self.outputs]  # type: ignore[arg-type]
        try:
            for name, tensor in given.items():
                if name in self._ports:
                    self._request.set_tensor(self._ports[name], self._tensor(tensor.numpy(), shared_memory=True))
            for port, tensor in zip(self._request.get_compiled_model().outputs, results, strict=True):
                self._request.set_tensor(port, self._tensor(tensor.numpy(), shared_memory=True))
            self._request.infer()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{self._path}: OpenVINO cannot run it ({reason}); export the student again") from error
        return results


@cache
def _core() -> Any:
    """The one core of this process, for good.

    Its CPU plugin gives the main thread a stack for signal handlers, and takes the memory away with the last core: the
    next signal, as that of a data loader's process that ends, would then kill the program (seen in 2026.4).
    """
    import openvino

    return openvino.Core()


def _spec(port: Any) -> TensorSpec:
    sides = port.get_partial_shape()
    shape = tuple(side.get_length() if side.is_static else None for side in sides)
    return TensorSpec(shape, TYPES.get(port.get_element_type().get_type_name()))
