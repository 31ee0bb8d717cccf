"""The registry of networks: `MODELS["ddrnet_23_slim"](num_classes=19)`, and networks of other libraries by name."""

import functools
from collections.abc import Callable, Mapping

from torch import nn

from vidistill.errors import UserError, nearest
from vidistill.models.ddrnet import ddrnet_23, ddrnet_23_slim, ddrnet_39
from vidistill.models.edvr import edvr
from vidistill.models.efficientdet import efficientdet_d0, efficientdet_lite0
from vidistill.models.fastdvdnet import fastdvdnet
from vidistill.models.faster_rcnn import (
    faster_rcnn_efficientnet_lite0,
    faster_rcnn_mobilenet_v3,
    faster_rcnn_resnet50,
    faster_rcnn_resnet101,
)
from vidistill.models.hrnet import hrnet_w18_small
from vidistill.models.libraries import LIBRARIES
from vidistill.models.segment_network import tsm, tsn
from vidistill.models.slow_only import slow_only
from vidistill.models.vespcn import vespcn, vsrnet
from vidistill.models.video_swin import video_swin_b, video_swin_s, video_swin_t

MODELS: dict[str, Callable[..., nn.Module]] = {
    "ddrnet_23_slim": ddrnet_23_slim,
    "ddrnet_23": ddrnet_23,
    "ddrnet_39": ddrnet_39,
    "efficientdet_d0": efficientdet_d0,
    "efficientdet_lite0": efficientdet_lite0,
    "faster_rcnn_resnet101": faster_rcnn_resnet101,
    "faster_rcnn_resnet50": faster_rcnn_resnet50,
    "faster_rcnn_mobilenet_v3": faster_rcnn_mobilenet_v3,
    "faster_rcnn_efficientnet_lite0": faster_rcnn_efficientnet_lite0,
    "hrnet_w18_small": hrnet_w18_small,
    "tsn": tsn,
    "tsm": tsm,
    "slow_only": slow_only,
    "video_swin_t": video_swin_t,
    "video_swin_s": video_swin_s,
    "video_swin_b": video_swin_b,
    "edvr": edvr,
    "vsrnet": vsrnet,
    "vespcn": vespcn,
    "fastdvdnet": fastdvdnet,
}


def build_network(name: str, library: str = "vidistill", options: Mapping[str, object] | None = None) -> nn.Module:
    """A network of ours or of another library by name, untrained unless its options say otherwise.

    Args:
        name: a key of `MODELS`, or the library's own name for the network.
        library: "vidistill", or a key of `LIBRARIES`.
        options: keyword arguments of the network's builder, such as `{"num_classes": 19}`.

    Returns:
        The network, on the CPU.

    Raises:
        UserError: for an unknown library or name, or options that the network cannot be built with.
    """
    options = dict(options or {})
    if library == "vidistill":
        if name not in MODELS:
            raise UserError(
                f"unknown network '{name}'; {nearest(name, MODELS)}; import one of your own with --import my_nets.py"
            )
        builder: Callable[..., nn.Module] = MODELS[name]
    elif library in LIBRARIES:
        builder = functools.partial(LIBRARIES[library], name)
    else:
        raise UserError(f"unknown library '{library}'; {nearest(library, ['vidistill', *LIBRARIES])}")
    try:
        return builder(**options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{library}'s network '{name}' cannot be built with {options} ({error}); correct its options"
        ) from error
