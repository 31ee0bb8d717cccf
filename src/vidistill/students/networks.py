"""What may become a student: a network without the wrappers that training and compiling put around it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vidistill.errors import UserError
from vidistill.ops.modules import copied, first_line, is_out_of_memory

# by class, where it keeps what it wraps; by name, since importing the last one would import the compiler
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def bare(network: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile; a copy where a part of it is wrapped.

    Raises:
        UserError: it has weights without values: of a lazy layer that no frame has run yet, or on the meta device.
    """
    network = _inside(network)
    if _wrapped(network) is not None:
        network = copied(network)
    while (path := _wrapped(network)) is not None:
        network.set_submodule(path, _inside(network.get_submodule(path)))
    if "eval" in vars(network):  # torch.export's, whose eval() raises an error
        raise UserError(
            f"{type(network).__name__}: an exported program cannot switch between training and evaluation; give the "
            "network that it was exported from"
        )
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


def require_python(network: nn.Module) -> None:
    """Errors: UserError for TorchScript, whose layers cannot be replaced."""
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                f"{type(network).__name__}: '{path or 'the network'}' is TorchScript, whose layers cannot be replaced; "
                "give the network that it was made from"
            )


@contextmanager
def running_on(network: nn.Module, example: Tensor) -> Iterator[None]:
    """Around a run of the network on the example.

    Raises:
        UserError: it does not run, whatever it raises.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        size = "x".join(str(side) for side in example.shape)
        raise UserError(
            f"{type(network).__name__} cannot run on a frame of {size} in {str(example.dtype).removeprefix('torch.')}: "
            f"{first_line(error)}; it must take one tensor, in the size and precision of your frames"
        ) from error


def _wrapped(network: nn.Module) -> str | None:
    """The path of the first part that is wrapped, from the outside in."""
    return next((path for path, module in network.named_modules() if _inside(module) is not module), None)


def _inside(module: nn.Module) -> nn.Module:
    inside = WRAPPERS.get(type(module).__name__)
    while inside is not None and isinstance(getattr(module, inside, None), nn.Module):
        module = getattr(module, inside)
        inside = WRAPPERS.get(type(module).__name__)
    return module
