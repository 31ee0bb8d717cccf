"""What networks return, whatever their library wraps it in."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidistill.errors import UserError

NetworkOutputs = Any  # a tensor, or mappings, lists and objects that hold tensors: whatever a network returns

MAIN = ("out", "logits")  # what torchvision and Transformers call the main one of several outputs


def logits_of(outputs: object) -> Tensor:
    """The logits in what a network returns.

    A tensor is taken as it is; of several outputs, as a mapping, a named tuple, a dataclass or an object, the one that
    is called `out` or `logits`; else the only tensor among them, as in a tuple of one, or of one and None or lists.

    Raises:
        UserError: there is none, it is unclear which it is, or it is complex.
    """
    logits = outputs
    if not isinstance(outputs, Tensor):
        parts = parts_of(outputs)
        if parts is None:
            raise UserError(f"a network must return its logits as a tensor, got {type(outputs).__name__}")
        named = [parts[name] for name in MAIN if isinstance(parts.get(name), Tensor)]
        tensors = named[:1] or [part for part in parts.values() if isinstance(part, Tensor)]
        inside = [part for part in parts.values() if parts_of(part) is not None]
        if not tensors and len(inside) == 1:  # a tuple of one dict, and the like
            return logits_of(inside[0])
        if len(tensors) != 1:
            raise UserError(
                f"a network must return one tensor of logits, or call it 'out' or 'logits', got {len(tensors)} tensors "
                f"in a {type(outputs).__name__} of {', '.join(str(name) for name in parts) or 'nothing'}; return the "
                "logits alone"
            )
        (logits,) = tensors
    assert isinstance(logits, Tensor)
    if logits.is_complex():
        raise UserError("a network must return real logits, got complex ones; return their magnitude")
    return logits


def parts_of(outputs: object) -> Mapping[Any, Any] | None:
    """What an output is made of, by name or place; None for a tensor and whatever holds none."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):  # a named tuple
        return dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, list | tuple):
        return dict(enumerate(outputs))
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    named = {name: getattr(outputs, name, None) for name in MAIN}
    return {name: part for name, part in named.items() if isinstance(part, Tensor)} or None


def named_tensors(outputs: NetworkOutputs, name: str) -> dict[str, Tensor]:
    """The tensors in a network's outputs, each under its path: `name`, `name/logits`, `name/0` …

    What is no tensor is left out.
    """
    if isinstance(outputs, Tensor):
        return {name: outputs}
    parts = parts_of(outputs) or {}
    return {path: t for key, part in parts.items() for path, t in named_tensors(part, f"{name}/{key}").items()}


def from_named(tensors: Mapping[str, Tensor], name: str) -> NetworkOutputs:
    """What `named_tensors` took apart: a tensor, or dicts and lists of tensors; None for what a list lacks."""
    if name in tensors:
        return tensors[name]
    keys = dict.fromkeys(path.removeprefix(f"{name}/").split("/")[0] for path in tensors if path.startswith(f"{name}/"))
    parts = {key: from_named(tensors, f"{name}/{key}") for key in keys}
    if not keys or not all(key.isascii() and key.isdecimal() for key in keys):
        return parts
    return [parts.get(str(i)) for i in range(1 + max(int(key) for key in keys))]


def largest_gap(outputs: NetworkOutputs, others: NetworkOutputs) -> float:
    """The largest absolute difference in any tensor of two outputs, divided by that tensor's largest value.

    Infinite where one has a tensor that the other lacks, or of another shape; places where both are NaN are equal.
    """
    ours, theirs = named_tensors(outputs, "output"), named_tensors(others, "output")
    if any(theirs[name].shape != tensor.shape if name in theirs else True for name, tensor in ours.items()):
        return float("inf")
    return max((_gap(tensor, theirs[name]) for name, tensor in ours.items() if tensor.numel()), default=0.0)


def _gap(ours: Tensor, theirs: Tensor) -> float:
    exact = torch.complex128 if ours.is_complex() else torch.float64
    ours, theirs = ours.detach().cpu().to(exact), theirs.detach().cpu().to(exact)
    scale = ours.abs().nan_to_num(0.0, posinf=0.0).max().clamp(min=1e-12)
    apart = torch.where((ours == theirs) | (ours.isnan() & theirs.isnan()), 0.0, (ours - theirs).abs() / scale)
    return float(apart.max())
