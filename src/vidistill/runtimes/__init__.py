"""How students run where they are deployed: `RUNTIMES`. A new runtime is a file here and one line below."""

from pathlib import Path

import pydantic
from torch import Tensor

from vidistill.config import choose, validate_json
from vidistill.errors import UserError
from vidistill.runtimes.compiled import Compiled
from vidistill.runtimes.contract import Deployed, Exported, Runtime
from vidistill.runtimes.eager import Eager
from vidistill.runtimes.onnx import Onnx
from vidistill.runtimes.openvino import OpenVino
from vidistill.students.files import load_student
from vidistill.students.student import Student

__all__ = ["DEFAULT", "RUNTIMES", "Deployed", "Exported", "Runtime", "choose_runtime", "deploy", "open_student"]

RUNTIMES: dict[str, Runtime] = {
    "eager": Eager(),
    "compiled": Compiled(),
    "onnx": Onnx(),
    "openvino": OpenVino(),
}
DEFAULT = "eager"


class _ExportedFor(pydantic.BaseModel):
    """What every exported card says, whatever else its runtime keeps there."""

    runtime: str


def deploy(
    student: Student, pixels: Tensor, *, runtime: str | None = None, precision: str | None = None, threads: int = 0
) -> Deployed:
    """The student as it runs in a runtime, on frames as they come; the one that is given stays as it is.

    Args:
        student: of any form, or one that `open_student` read from an exported folder.
        pixels: (1, H, W, 3) uint8, a frame of the size that will come, on the student's device.
        runtime: a key of `RUNTIMES`; None for the default, or the one that the student was exported for.
        precision: one of the runtime's `precisions`; None for float32, or the one of the export.
        threads: 0 for the runtime's own choice.

    Raises:
        UserError: the runtime is unknown, cannot run in this precision, or the student was exported for another.
    """
    if isinstance(student, Deployed):
        if runtime not in (None, student.runtime) or precision not in (None, student.precision):
            raise UserError(
                f"the student was exported for runtime {student.runtime} in {student.precision}, got runtime {runtime} "
                f"and precision {precision}; leave both out, or give the student before its export"
            )
        return student
    precision = precision or "float32"
    return choose_runtime(runtime, precision)(student, pixels, precision=precision, threads=threads)


def choose_runtime(name: str | None, precision: str, *, where: str = "runtime") -> Runtime:
    """The runtime by its name, None for the default.

    Raises:
        UserError: the name is unknown, or it does not run in this precision.
    """
    runtime = choose(RUNTIMES, name or DEFAULT, where=where)
    if precision not in runtime.precisions:
        raise UserError(
            f"precision of runtime {runtime.name} must be one of {', '.join(runtime.precisions)}, got {precision}"
        )
    return runtime


def open_student(path: str | Path, *, threads: int = 0) -> Student:
    """A student from a .safetensors file, a run folder, or a folder that an export wrote.

    threads: of one that was exported; 0 for its runtime's own choice.

    Raises:
        UserError: none of these is at `path`, or it cannot be read.
    """
    card = Path(path) / "card.json"
    if not card.is_file():
        return load_student(path)
    try:
        text = card.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{card}: cannot be read ({error}); export the student again") from error
    where, advice = f"{card}: is not the card of an exported student", "export it again"
    name = validate_json(_ExportedFor, text, where=where, advice=advice).runtime
    return choose(RUNTIMES, name, where=f"{card}: runtime").load(Path(path), threads=threads)
