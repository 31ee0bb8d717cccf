"""What networks return, whatever their library wraps it in."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_of(outputs: Any) -> Tensor:
    """The logits in what a network returns: a tensor, {'out': …} or {'logits': …}, or an object with `.logits`.

    Errors: TypeError for anything else.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        for name in ("out", "logits"):
            if name in outputs:
                return outputs[name]
    if isinstance(getattr(outputs, "logits", None), Tensor):
        return outputs.logits
    raise TypeError(f"a network returns logits, {{'out': logits}} or .logits, not {type(outputs).__name__}")
