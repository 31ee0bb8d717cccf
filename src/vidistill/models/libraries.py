"""Networks of other libraries by name, untrained, behind one signature: a name, `num_classes` and options.

Their video networks come as clip networks, see `clips`, and torchvision's detectors as ours, see `detectors`.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vidistill.errors import UserError, nearest
from vidistill.models.anchor_detectors import AnchorDetector, anchor_detector
from vidistill.models.clip_adapters import MaskedAutoencoderClips, adapt_torchvision
from vidistill.models.region_detectors import FasterRCNN, faster_rcnn
from vidistill.models.weights import load_tensors, read_weights
from vidistill.ops.normalise import Normalisation

# trained before torchvision's frozen norms had an eps; torchvision sets 0 where it loads their weights itself
WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


def torchvision_network(name: str, **options: Any) -> nn.Module:
    """A torchvision model by name.

    Args:
        name: torchvision's, such as `deeplabv3_resnet50`, `r3d_18` or `fcos_resnet50_fpn`.
        options: torchvision's keyword arguments, `num_classes` among them; a detector's background is not counted.

    Returns:
        The model without weights, unless an option `weights` asks for them; a video network as a clip network, a
        detector as a `Detector`.

    Raises:
        UserError: for an unknown name.
        ValueError: for a detector of masks or keypoints.
    """
    builder = _torchvision_builder(name)
    if ".detection." in builder.__module__:
        return faster_rcnn(builder, **options) if _has_proposals(builder) else anchor_detector(builder, **options)
    defaults = {"weights": None} | ({"weights_backbone": None} if "segmentation" in builder.__module__ else {})
    network = builder(**defaults | options)
    return adapt_torchvision(network) if ".video." in builder.__module__ else network


def torchvision_classes(name: str) -> tuple[str, ...]:
    """The class names of torchvision's published weights of a network, its background included.

    Errors: UserError for an unknown name.
    """
    _torchvision_builder(name)
    return tuple(import_torchvision().models.get_model_weights(name).DEFAULT.meta["categories"])


def torchvision_with_weights(name: str, path: str | Path) -> tuple[nn.Module, Normalisation]:
    """torchvision's detector or segmenter behind our contract, with its own weights, and the normalisation they want.

    path: of the weights. Errors: UserError where they cannot be read or do not fit.
    """
    num_classes = len(torchvision_classes(name))
    builder = _torchvision_builder(name)
    kind = builder.__module__.split(".")[2]  # torchvision.models.<kind>.…
    if kind not in ("detection", "segmentation"):
        raise UserError(f"torchvision's '{name}' is neither a detector nor a segmenter; only those label frames")
    library: Any = builder(weights=None, weights_backbone=None, num_classes=num_classes)
    tensors = read_weights(path).under(library.state_dict())
    tensors = {n: t for n, t in tensors.items() if not n.startswith("aux_classifier.")}  # which only trains
    load_tensors(library, tensors, where=str(path))
    if name in WITHOUT_EPS:
        for module in library.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    if kind == "segmentation":
        return library, Normalisation()
    mean, std = library.transform.image_mean, library.transform.image_std
    network = FasterRCNN(library) if _has_proposals(builder) else AnchorDetector(library)
    return network, Normalisation(tuple(mean), tuple(std))


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    models = import_torchvision().models
    if name not in models.list_models():
        raise UserError(f"torchvision has no model '{name}'; {nearest(name, models.list_models())}")
    return models.get_model_builder(name)


def _has_proposals(builder: Callable[..., nn.Module]) -> bool:
    """Whether torchvision's builder is of a two-stage detector. Errors: ValueError for one of masks or keypoints."""
    kind = builder.__module__.rpartition(".")[2]
    if kind not in ("faster_rcnn", "retinanet", "fcos", "ssd", "ssdlite"):
        raise ValueError(f"a {kind} finds more than boxes, expected a faster_rcnn, retinanet, fcos, ssd or ssdlite")
    return kind == "faster_rcnn"


def timm_network(name: str, **options: object) -> nn.Module:
    """A timm model by name, without weights. Errors: UserError for an unknown name."""
    library = import_library("timm")
    if not library.is_model(name):
        raise UserError(f"timm has no model '{name}'; {nearest(name, library.list_models())}")
    return library.create_model(name, **options)


def smp_network(name: str, *, num_classes: int = 1, **options: object) -> nn.Module:
    """A segmentation-models-pytorch model by name.

    Args:
        name: its architecture, such as `unet`.
        num_classes: channels of the logits.
        options: its keyword arguments, such as `encoder_name`: "tu-resnet18", or "tu-" and any timm encoder.

    Returns:
        The model without weights, unless an option `encoder_weights` asks for them.

    Raises:
        UserError: for an unknown name.
    """
    library = import_library("segmentation_models_pytorch")
    names = sorted(library.MODEL_ARCHITECTURES_MAPPING)
    if name.lower() not in names:
        raise UserError(f"segmentation_models_pytorch has no model '{name}'; {nearest(name, names)}")
    return library.create_model(name, **{"encoder_weights": None, "classes": num_classes} | options)


def transformers_network(name: str, *, num_classes: int = 1, **options: object) -> nn.Module:
    """A network of Transformers by its model type, for semantic segmentation or for clips.

    Args:
        name: a model type with a network for semantic segmentation, such as `segformer`; or `videomae`.
        num_classes: channels of the logits.
        options: of its configuration, such as `depths`.

    Returns:
        The network, untrained; VideoMAE as a clip network.

    Raises:
        UserError: for an unknown name.
    """
    library = import_library("transformers")
    if name == "videomae":
        config = library.VideoMAEConfig(**{"num_labels": num_classes} | options)
        return MaskedAutoencoderClips(library.VideoMAEForVideoClassification(config))
    known = {config.model_type: config for config in library.AutoModelForSemanticSegmentation._model_mapping}
    if name not in known:
        raise UserError(
            f"transformers has no network '{name}' for semantic segmentation or clips; "
            f"{nearest(name, [*known, 'videomae'])}"
        )
    config = known[name](**{"num_labels": num_classes} | options)
    return library.AutoModelForSemanticSegmentation.from_config(config)


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators were built for another torch (a CUDA wheel beside a CPU torch).

    Its networks need none of them, but importing it asks for the names of two. Errors: UserError where it is missing.
    """
    try:
        return _import("torchvision.models")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        return _import("torchvision.models")


def import_library(name: str) -> ModuleType:
    """A library that imports torchvision, which may need the workaround of `import_torchvision`."""
    import_torchvision()
    return _import(name)


def _import(name: str) -> ModuleType:
    """The package of a module, with the module imported. Errors: UserError where it is missing."""
    package = name.split(".")[0]
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{package} is not installed; pip install 'vidistill[networks]'") from error
    return importlib.import_module(package)


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "torchvision": torchvision_network,
    "segmentation_models_pytorch": smp_network,
    "transformers": transformers_network,
}
