"""What modules inside a network return, or are given, by path: every call of each, in order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from vidistill.errors import UserError, nearest


@contextmanager
def tapped(network: nn.Module, paths: Sequence[str], *, inputs: bool = False) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the outputs of the modules at `paths` while the block runs, a list a path, an entry a call.

    inputs: their first arguments instead.

    Errors: UserError for a path that the network does not have, with the nearest; and, when the block ends well, for
    one whose module never ran.
    """
    modules = dict(network.named_modules())
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[path].append(args[0] if inputs else output)

        return hook

    for path in paths:
        if path not in modules:
            raise UserError(f"{type(network).__name__} has no module '{path}' to tap; {nearest(path, modules)}")
    handles = [modules[path].register_forward_hook(note(path)) for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    for path, outputs in found.items():
        if not outputs:
            raise UserError(f"the module '{path}' of {type(network).__name__} never runs; tap another")
