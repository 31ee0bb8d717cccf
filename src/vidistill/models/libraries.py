"""Networks by name, ours and other libraries'."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vidistill.errors import UserError, nearest


def torchvision_network(name: str, **options: Any) -> nn.Module:
    """A torchvision model by name, without weights unless asked for. Errors: UserError for an unknown name."""
    torchvision = import_torchvision()
    if name not in torchvision.models.list_models():
        raise UserError(f"torchvision has no model '{name}'; {nearest(name, torchvision.models.list_models())}")
    builder = torchvision.models.get_model_builder(name)
    defaults = {"weights": None} | ({"weights_backbone": None} if "segmentation" in builder.__module__ else {})
    return builder(**defaults | options)


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators were built for another torch (a CUDA wheel beside a CPU torch).

    Its networks need none of them, but importing it asks for the names of two. Errors: UserError where it is missing.
    """
    try:
        return _import()
    except ImportError as error:
        raise UserError("torchvision is not installed; pip install 'vidistill[networks]'") from error
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        return _import()


def _import() -> ModuleType:
    import torchvision.models

    return torchvision


LIBRARIES: dict[str, Callable[..., nn.Module]] = {"torchvision": torchvision_network}
