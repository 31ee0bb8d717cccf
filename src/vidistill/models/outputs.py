"""What networks return, whatever their library wraps it in."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NetworkOutputs = Any  # a tensor, or mappings, lists and objects that hold tensors: whatever a network returns


def logits_of(outputs: object) -> Tensor:
    """The logits in what a network returns: a tensor, {"out": …} or {"logits": …}, or an object with `.logits`.

    Errors: TypeError for anything else.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        for name in ("out", "logits"):  # torchvision's segmenters; plain dicts
            if name in outputs:
                return outputs[name]
    logits = getattr(outputs, "logits", None)  # Transformers' ModelOutput
    if isinstance(logits, Tensor):
        return logits
    raise TypeError(f"a network must return logits, {{'out': logits}} or .logits, got {type(outputs).__name__}")


def named_tensors(outputs: NetworkOutputs, name: str) -> dict[str, Tensor]:
    """The tensors in a network's outputs, each under its path: `name`, `name/logits`, `name/0` …

    An object with `.logits` counts as a mapping with that entry. What is no tensor is left out.
    """
    if isinstance(outputs, Tensor):
        return {name: outputs}
    parts: Mapping[Any, Any] = {}
    if isinstance(outputs, Mapping):
        parts = outputs
    elif isinstance(outputs, list | tuple):
        parts = dict(enumerate(outputs))
    elif isinstance(getattr(outputs, "logits", None), Tensor):
        parts = {"logits": outputs.logits}
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
