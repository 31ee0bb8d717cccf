"""The door to the networks: `MODELS["ddrnet_23_slim"](num_classes=19)`, and networks of other libraries by name."""

import functools
from collections.abc import Callable
from typing import Any

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


def build_network(name: str, library: str = "vidistill", options: dict[str, Any] | None = None) -> nn.Module:
    """A network of ours or of another library by name, untrained. Errors: UserError for an unknown name or option."""
    options = options or {}
    if library == "vidistill":
        if name not in MODELS:
            raise UserError(
                f"there is no network '{name}'; {nearest(name, MODELS)}; one of your own comes with --import my_nets.py"
            )
        builder: Callable[..., nn.Module] = MODELS[name]
    elif library in LIBRARIES:
        builder = functools.partial(LIBRARIES[library], name)
    else:
        raise UserError(f"there is no library '{library}'; {nearest(library, ['vidistill', *LIBRARIES])}")
    try:
        return builder(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{library}'s network '{name}' cannot be built with {options} ({error})") from error
