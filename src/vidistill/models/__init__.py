"""The door to the networks: `MODELS["ddrnet_23_slim"](num_classes=19)`, and networks of other libraries by name."""

from collections.abc import Callable

from torch import nn

from vidistill.models.ddrnet import ddrnet_23, ddrnet_23_slim, ddrnet_39

MODELS: dict[str, Callable[..., nn.Module]] = {
    "ddrnet_23_slim": ddrnet_23_slim,
    "ddrnet_23": ddrnet_23,
    "ddrnet_39": ddrnet_39,
}
