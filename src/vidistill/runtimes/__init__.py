"""How students run where they are deployed: `RUNTIMES`. A new runtime is a file here and one line below."""

from pathlib import Path

import pydantic
from torch import Tensor

from vidistill.config import choose, validate_json
from vidistill.errors import UserError
from vidistill.runtimes.compiled import Compiled
from vidistill.runtimes.contract import Exported, Runtime
from vidistill.runtimes.eager import Eager
from vidistill.runtimes.onnx import Onnx
from vidistill.students.files import load_student
from vidistill.students.student import Student

__all__ = ["DEFAULT", "RUNTIMES", "Exported", "Runtime", "choose_runtime", "deploy", "open_student"]

RUNTIMES: dict[str, Runtime] = {
    "eager": Eager(),
    "compiled": Compiled(),
    "onnx": Onnx(),
}
DEFAULT = "eager"


class _ExportedFor(pydantic.BaseModel):
    """What every exported card says, whatever else its runtime keeps there."""

    runtime: str


def deploy(
    student: Student, example: Tensor, *, runtime: str | None = None, precision: str = "float32", threads: int = 0
) -> Student:
    """The student as it runs in a runtime, with the same contract and card; the one that is given stays as it is.

    Args:
        student: of any form, or one that `open_student` read from an exported folder.
        example: (1, 3, H, W) float32, a normalised frame of the size that will come, on the student's device.
        runtime: a key of `RUNTIMES`; None for the default, or the one that the student was exported for.
        precision: one of the runtime's `precisions`.
        threads: 0 for the runtime's own choice.

    Raises:
        UserError: the runtime is unknown, cannot run in this precision, or the student was exported for another.
    """
    if student.runtime is not None:
        if runtime not in (None, student.runtime) or precision != "float32":
            raise UserError(
                f"the student was exported for runtime {student.runtime} in float32, got runtime {runtime} and "
                f"precision {precision}; leave both out, or give the student before its export"
            )
        return student
    return choose_runtime(runtime, precision)(student, example, precision=precision, threads=threads)


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
