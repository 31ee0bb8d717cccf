"""Files that outlive a run: checkpoints to resume from, and students that load alone."""

import errno
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.config import Values, choose
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.models.untrusted import build_untrusted, confined
from vidistill.models.weights import load_tensors
from vidistill.models.weights import load_weights as load_weights  # its earlier place
from vidistill.ops.clip_view import WindowView
from vidistill.students.card import Card
from vidistill.students.forms import FORMS
from vidistill.students.student import Student
from vidistill.students.windows import LookAhead


def save_checkpoint(path: str | Path, contents: Values) -> None:
    """Writes a checkpoint of tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(errno.ENOSPC, "disk full") from error


def load_checkpoint(path: str | Path, device: str = "cpu") -> Values:
    """A checkpoint's contents; only tensors and plain values are read, nothing in the file is executed."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: file not found; check the path") from error
    except Exception as error:
        raise UserError(
            f"{path}: is not a checkpoint of tensors ({type(error).__name__}); give another file"
        ) from error


def save_student(path: str | Path, student: Student, *, half: bool = False) -> None:
    """The student's weights with its card in the header, as safetensors; half: in half precision."""
    inner = student.network if isinstance(student, LookAhead) and isinstance(student.network, Student) else student
    state = inner.state_dict()  # a module with two parents has two copies
    tensors = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_tensors(path, tensors, {"card": student.card.to_json()})


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, atomically."""
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        except safetensors.SafetensorError as error:  # how it reports a failed write
            raise OSError(errno.ENOSPC, "disk full") from error


def load_student(path: str | Path, network: nn.Module | None = None) -> Student:
    """A saved student, ready to run: `outputs, state = student(frame, state)`, in evaluation mode.

    The file may come from anyone: loading it reaches no network, runs none of its code, and takes memory in proportion
    to its tensors, see `vidistill.models.untrusted`.

    Args:
        path: a .safetensors file that `save_student` wrote, or a run folder that holds student.safetensors.
        network: the network that the student was made from, where it is the user's own; its weights are replaced.

    Raises:
        UserError: the file is not a student, the network must be given, or the weights do not fit it.
    """
    path = student_file(path)
    tensors, card = _read_student(path)
    form = choose(FORMS, card.form, where=f"{path}: form")
    if network is None and not card.network:
        raise UserError(f"{path}: was made from a network of your own; give it as load_student(path, network=…)")
    own = 0 if network is None else sum(tensor.numel() for tensor in network.state_dict().values())
    with confined(own + sum(tensor.numel() for tensor in tensors.values()), where=str(path)):
        student = form(network or build_untrusted(card.network, where=str(path)), card)
    load_tensors(student, tensors, where=str(path))
    if isinstance(card.view, WindowView) and not isinstance(student, LookAhead):
        student = LookAhead(student, card)
    return student.eval().requires_grad_(False)


def student_file(path: str | Path) -> Path:
    """The student's file, also of a run folder."""
    path = Path(path)
    return path / "student.safetensors" if path.is_dir() else path


def _read_student(path: Path) -> tuple[dict[str, Tensor], Card]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: file not found; give a student.safetensors, the run folder that holds it, or an exported folder "
            "with its card.json"
        ) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is not a safetensors file ({error}); give a student.safetensors") from error
    if "card" not in metadata:
        raise UserError(f"{path}: holds weights but not a student's card; give it as a checkpoint in a recipe instead")
    return tensors, Card.from_json(metadata["card"], where=str(path))
