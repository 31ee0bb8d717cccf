"""What networks return, whatever their library wraps it in."""

from collections.abc import Mapping

from torch import Tensor


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
