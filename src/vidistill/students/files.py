"""Files that outlive a run: checkpoints to resume from, and students that load alone."""

import errno
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.models import build_network
from vidistill.ops.clip_view import WindowView
from vidistill.students.card import Card
from vidistill.students.delta.network import convert
from vidistill.students.delta.plan import Plan
from vidistill.students.low_rank import factorise
from vidistill.students.student import StatefulNetwork
from vidistill.students.windows import LookAhead, stateful


def save_checkpoint(path: str | Path, contents: dict[str, Any]) -> None:
    """Writes a checkpoint of tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(errno.ENOSPC, "disk full") from error


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """A checkpoint's contents; only tensors and plain values are read, nothing in the file is executed."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except Exception as error:
        raise UserError(
            f"{path}: is not a checkpoint of tensors ({type(error).__name__}); give another file"
        ) from error


def save_student(path: str | Path, student: StatefulNetwork, card: Card, *, half: bool = False) -> None:
    """The student's weights with its card in the header, as safetensors; half: in half precision."""
    state = student.state_dict()  # of a module with two parents, two copies
    tensors = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"card": card.to_json()})


def load_student(path: str | Path, network: nn.Module | None = None) -> StatefulNetwork:
    """A saved student, ready to run: `outputs, state = student(frame, state)`, in evaluation mode, with its card.

    network: the network that the student was made from, where it is the user's own; its weights are replaced.
    Errors: UserError where the file is no student, the network must be given, or the weights do not fit it.
    """
    tensors, card = _read_student(path)
    if network is None:
        if not card.network:
            raise UserError(f"{path}: was made from a network of your own; give it as load_student(path, network=…)")
        network = build_network(**card.network)
    student = _assemble(network, card, path)
    _load_tensors(student, tensors, path)
    if isinstance(card.view, WindowView) and not isinstance(student, LookAhead):
        student = LookAhead(student, card.view)
    student.card, student.normalisation = card, card.normalisation
    return student.eval().requires_grad_(False)


def _read_student(path: str | Path) -> tuple[dict[str, Tensor], Card]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is not a safetensors file ({error})") from error
    if "card" not in metadata:
        raise UserError(f"{path}: holds weights but no student's card; give it as a checkpoint in a recipe instead")
    return tensors, Card.from_json(metadata["card"], where=str(path))


def _assemble(network: nn.Module, card: Card, path: str | Path) -> StatefulNetwork:
    try:
        plan = Plan.from_list(card.plan)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its plan is of another vidistill ({error!r}); distil it again") from error
    if card.form == "delta":
        student = convert(network, plan, start=False)
        student.folding = "later"
        return student
    return factorise(network, plan, start=False) if card.form == "low_rank" else stateful(network, card.view)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Loads weights into `network`: a student of ours that sees each frame alone, safetensors, or a .pth of tensors.

    Nothing in a file is executed. Errors: UserError where the file cannot be read or does not fit.
    """
    if Path(path).suffix == ".safetensors":
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: cannot be read as safetensors ({error})") from error
    else:
        tensors = load_checkpoint(path)
    nested = tensors.get("state_dict")
    inner: dict[str, Tensor] = nested if isinstance(nested, dict) else tensors
    own = set(network.state_dict())
    if not own & set(inner) and all(name.startswith("network.") for name in inner):
        inner = {name.removeprefix("network."): tensor for name, tensor in inner.items()}
    _load_tensors(network, inner, path)


def _load_tensors(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    own = module.state_dict()
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unknown:
        first = f"lacks '{missing[0]}'" if missing else f"has '{unknown[0]}', which the network has not"
        raise UserError(
            f"{path}: does not fit the network: it {first} ({len(missing)} missing, {len(unknown)} unknown)"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{path}: '{name}' is {tuple(tensor.shape)}, the network's is {tuple(own[name].shape)}")
    module.load_state_dict(tensors)
