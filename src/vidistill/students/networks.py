"""What may become a student: a network without the wrappers that training and compiling put around it."""

from torch import nn
from torch.nn.parameter import is_lazy

from vidistill.errors import UserError
from vidistill.ops.modules import copied

# by class, where it keeps what it wraps; by name, since importing the last one would import the compiler
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def bare(network: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile; a copy where a part of it is wrapped.

    Raises:
        UserError: it has weights without values: of a lazy layer that no frame has run yet, or on the meta device.
    """
    network = _inside(network)
    wrapped = [path for path, module in network.named_modules() if _inside(module) is not module]
    if wrapped:
        network = copied(network)
        for path in wrapped:
            network.set_submodule(path, _inside(network.get_submodule(path)))
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise UserError(
                f"{type(network).__name__}: '{name}' is of a lazy layer that has no shape yet; run the network once "
                "on a frame first"
            )
        if tensor.is_meta:
            raise UserError(
                f"{type(network).__name__}: '{name}' has no values, it is on the meta device; load its weights first"
            )
    return network


def _inside(module: nn.Module) -> nn.Module:
    inside = WRAPPERS.get(type(module).__name__)
    while inside is not None and isinstance(getattr(module, inside, None), nn.Module):
        module = getattr(module, inside)
        inside = WRAPPERS.get(type(module).__name__)
    return module
