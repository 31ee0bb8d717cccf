"""Networks of other libraries by name, untrained, behind one signature: a name, `num_classes` and options.

Their video networks come as clip networks, see `clips`.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vidistill.errors import UserError, nearest
from vidistill.models.anchor_detectors import AnchorDetector, anchor_detector
from vidistill.models.clip_adapters import MaskedAutoencoderClips, adapt_torchvision
from vidistill.models.region_detectors import FasterRCNN, faster_rcnn
from vidistill.ops.normalise import Normalisation

# whose weights were trained before torchvision's frozen norms had an eps; it sets 0 where it loads them itself
WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


def torchvision_network(name: str, **options: Any) -> nn.Module:
    """A torchvision model by name, without weights unless asked for. Errors: UserError for an unknown name."""
    torchvision = import_torchvision()
    if name not in torchvision.models.list_models():
        raise UserError(f"torchvision has no model '{name}'; {nearest(name, torchvision.models.list_models())}")
    builder = torchvision.models.get_model_builder(name)
    if ".detection." in builder.__module__:
        return adapt_detector(builder, **options)
    defaults = {"weights": None} | ({"weights_backbone": None} if "segmentation" in builder.__module__ else {})
    network = builder(**defaults | options)
    return adapt_torchvision(network) if ".video." in builder.__module__ else network


def torchvision_classes(name: str) -> tuple[str, ...]:
    """The names of the classes that torchvision's published weights of a network know, its background included."""
    torchvision = import_torchvision()
    if name not in torchvision.models.list_models():
        raise UserError(f"torchvision has no model '{name}'; {nearest(name, torchvision.models.list_models())}")
    return tuple(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


def torchvision_with_weights(
    name: str, tensors: dict[str, torch.Tensor], *, where: str
) -> tuple[nn.Module, Normalisation]:
    """torchvision's detector or segmenter behind our contract, with its own weights, and how it wants frames.

    where: what the weights come from. Errors: UserError where they do not fit.
    """
    count = len(torchvision_classes(name))
    builder = import_torchvision().models.get_model_builder(name)
    kind = builder.__module__.split(".")[2]
    if kind not in ("detection", "segmentation"):
        raise UserError(f"torchvision's '{name}' is neither a detector nor a segmenter; only those label frames")
    library = builder(weights=None, weights_backbone=None, num_classes=count)
    counters = {n: t for n, t in library.state_dict().items() if n.endswith("num_batches_tracked")}
    tensors = {n: t for n, t in tensors.items() if not n.startswith("aux_classifier.")}  # which only trains
    try:
        library.load_state_dict(counters | tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{where}: does not fit torchvision's '{name}' ({reason}); give its own weights") from error
    if name in WITHOUT_EPS:
        for module in library.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    if kind == "segmentation":
        return library, Normalisation()
    mean, std = library.transform.image_mean, library.transform.image_std
    network = FasterRCNN(library) if _has_proposals(builder) else AnchorDetector(library)
    return network, Normalisation(tuple(mean), tuple(std))


def adapt_detector(builder: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """torchvision's detector behind our contract. Errors: ValueError for one of masks or keypoints."""
    return faster_rcnn(builder, **options) if _has_proposals(builder) else anchor_detector(builder, **options)


def _has_proposals(builder: Callable[..., nn.Module]) -> bool:
    kind = builder.__module__.rpartition(".")[2]
    if kind not in ("faster_rcnn", "retinanet", "fcos", "ssd", "ssdlite"):
        raise ValueError(f"its {kind} finds more than boxes")
    return kind == "faster_rcnn"


def timm_network(name: str, **options: Any) -> nn.Module:
    """A timm model by name, without weights. Errors: UserError for an unknown name."""
    import_torchvision()  # which timm imports, and which may need its workaround
    library = _library("timm")
    if not library.is_model(name):
        raise UserError(f"timm has no model '{name}'; {nearest(name, library.list_models())}")
    return library.create_model(name, **options)


def smp_network(name: str, *, num_classes: int = 1, **options: Any) -> nn.Module:
    """A segmentation-models-pytorch model, as in `unet` with `encoder_name: tu-resnet18` for any timm encoder.

    Errors: UserError for an unknown name.
    """
    import_torchvision()  # which timm imports, and which may need its workaround
    library = _library("segmentation_models_pytorch")
    names = sorted(library.MODEL_ARCHITECTURES_MAPPING)
    if name.lower() not in names:
        raise UserError(f"segmentation_models_pytorch has no model '{name}'; {nearest(name, names)}")
    return library.create_model(name, **{"encoder_weights": None, "classes": num_classes} | options)


def transformers_network(name: str, *, num_classes: int = 1, **options: Any) -> nn.Module:
    """A network of Transformers by its model type: for semantic segmentation, as `segformer`, or VideoMAE.

    options: its configuration. Errors: UserError for an unknown name.
    """
    import_torchvision()
    library = _library("transformers")
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
        return _library("torchvision.models")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        return _library("torchvision.models")


def _library(name: str) -> ModuleType:
    try:
        importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise UserError(f"{package} is not installed; pip install 'vidistill[networks]'") from error
    return importlib.import_module(name.split(".")[0])


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "torchvision": torchvision_network,
    "segmentation_models_pytorch": smp_network,
    "transformers": transformers_network,
}
