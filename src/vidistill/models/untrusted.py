"""Networks that a file from anyone names: of plain options alone, without network access, in bounded memory.

Three walls, of which each holds alone for what it covers: a card's options are those that the library's network
declares, with plain values, and none that loads anything (`allowed`); while a student is built, no socket opens; and
every tensor is refused before it is allocated where all of them would exceed what the file's own tensors explain
(`confined`).
"""

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vidistill.config import Settings, Values, validate
from vidistill.errors import UserError, nearest
from vidistill.models import build_network
from vidistill.models.libraries import import_library

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")  # of no hub, path or address, which have / or :
LOADS = re.compile(r"pretrained|weights")  # in names of options: the file's own tensors take their place
BACKBONES = {
    "backbone",
    "use_timm_backbone",
    "backbone_kwargs",
}  # for which Transformers asks a hub, also by plain names
LARGEST = 2**16  # of a number in options
MOST_VALUES = 10_000  # in all options together
MOST_MODULES = 30_000
SPARE_BYTES = 512 * 2**20  # allowed beside what the file's tensors explain
TIMES = 16  # how many times its tensors: a copy of the network, and what low-rank layers replace
NETWORK_EVENTS = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

_sealed: ContextVar[bool] = ContextVar("_sealed", default=False)
_hooks: list[Callable[[str, tuple[Any, ...]], None]] = []  # the audit hook once it is installed; it stays


class NamedNetwork(Settings):
    """How a card names its network, see `build_network`."""

    name: str
    library: str = "vidistill"
    options: Values = Field(default_factory=dict)


def build_untrusted(network: Values, *, where: str) -> nn.Module:
    """The network that a card names, with its `allowed` options. Errors: UserError that begins with `where`."""
    named = validate(NamedNetwork, network, where=f"{where}: network")
    options = allowed(named, where=where)
    try:
        return build_network(named.name, named.library, options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def allowed(named: NamedNetwork, *, where: str) -> Values:
    """The network's options without those that would load weights, which the student's own replace.

    Errors: UserError for a name or a text that is not plain, an option that the library's network does not declare, or
    a number that no network needs.
    """
    options = {key: value for key, value in named.options.items() if not LOADS.search(key)}
    _require_plain(options, where)
    if named.library == "transformers":
        return _of_transformers(named.name, options, where=where)
    if named.library == "segmentation_models_pytorch":  # which hands on to timm what it does not know
        networks = import_library("segmentation_models_pytorch").MODEL_ARCHITECTURES_MAPPING
        if named.name.lower() in networks:
            _require_declared(options, _parameters(networks[named.name.lower()]) | {"num_classes"}, where)
    return options  # ours and torchvision's load nothing but by options that name weights


def _of_transformers(name: str, options: Values, *, where: str) -> Values:
    """As `allowed`: what the configuration itself declares, and not what all of them share, which is how to load it."""
    library = import_library("transformers")
    shared = _parameters(library.PretrainedConfig)
    configs: Mapping[str, type] = library.CONFIG_MAPPING
    if name not in configs:
        return options  # an error of `build_network`
    declared = _parameters(configs[name]) - shared
    if name != "timm_backbone":
        declared -= BACKBONES
    _require_declared(options, declared | {"num_classes", "model_type", "out_features", "out_indices"}, where)
    inner = {
        key: _of_transformers(
            str(value.get("model_type", "")), {k: v for k, v in value.items() if not LOADS.search(k)}, where=where
        )
        for key, value in options.items()
        if isinstance(value, dict)
    }
    return options | inner


def _parameters(function: Callable[..., object]) -> set[str]:
    return {p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD}


def _require_declared(options: Values, declared: set[str], where: str) -> None:
    for key in options:
        if key not in declared:
            raise UserError(
                f"{where}: its card gives the network an option '{key}', which is not allowed in a student's file; "
                f"{nearest(key, sorted(declared))}"
            )


def _require_plain(values: Values, where: str) -> None:
    """Errors: UserError unless all are plain names, usual numbers, true, false, null, or lists and dicts of them."""
    waiting: list[tuple[str, object]] = list(values.items())
    count = 0
    while waiting:
        key, value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            waiting += [(key, item) for item in value]
        elif isinstance(value, str):
            if not PLAIN_NAME.fullmatch(value):
                raise UserError(
                    f"{where}: its card gives the network {key} {value[:80]!r}, expected a plain name, for a student's "
                    "file may name no hub, path or address; build the network yourself and give it as network="
                )
        elif value is not None and not (
            isinstance(value, int | float) and math.isfinite(value) and abs(value) <= LARGEST
        ):
            raise UserError(
                f"{where}: its card gives the network {key} {str(value)[:80]}, expected at most {LARGEST}; build the "
                "network yourself and give it as network="
            )
        if count > MOST_VALUES:
            raise UserError(f"{where}: its card gives the network more than {MOST_VALUES} values; give another file")


@contextmanager
def confined(num_elements: int, *, where: str) -> Iterator[None]:
    """While a student is built: no socket opens, and memory is bounded; whatever a library raises is a UserError.

    num_elements: of the tensors in the student's file.
    """
    if not _hooks:
        _hooks.append(_refuse_network)
        sys.addaudithook(_refuse_network)
    budget = _Budget(SPARE_BYTES + TIMES * 4 * num_elements)
    token = _sealed.set(True)
    counting = register_module_module_registration_hook(budget.count_module)
    try:
        with budget:
            yield
    except UserError:
        raise
    except Exception as error:  # a library may fail in any way on options that do not fit
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{where}: the student that its card describes cannot be built ({type(error).__name__}: {reason}); give "
            "another file"
        ) from error
    finally:
        counting.remove()
        _sealed.reset(token)


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:
    if event in NETWORK_EVENTS and _sealed.get():
        raise UserError(
            "a student's file may not reach for the network; give a file whose card names no hub or weights"
        )


class _Budget(TorchDispatchMode):
    """Refuses the tensor with which all new ones together would exceed `limit` bytes, before it is allocated."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.used = 0
        self.modules = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(returned.alias_info for returned in func._schema.returns):  # neither a view nor in place
            self.used += _bytes_of(func, args, kwargs)
            if self.used > self.limit:
                raise UserError(
                    f"the card asks for more than {self.limit / 2**20:.0f} MB of tensors, and the file's own do not "
                    "explain so many; build the network yourself and give it as network="
                )
        return func(*args, **kwargs)

    def count_module(self, module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        if not _sealed.get():
            return  # another thread's
        self.modules += 1
        if self.modules > MOST_MODULES:
            raise UserError(f"the card asks for a network of more than {MOST_MODULES} layers; give another file")


def _bytes_of(func: Any, args: Any, kwargs: Values) -> int:
    """Of the tensors that an operation would return, found on shapes alone; 0 where it depends on values."""
    on_meta = {"device": torch.device("meta")} if any(a.name == "device" for a in func._schema.arguments) else {}
    args, kwargs = tree_map_only(Tensor, _without_values, (args, kwargs))
    try:
        outputs = func(*args, **kwargs | on_meta)
    except (NotImplementedError, RuntimeError):
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in tree_leaves(outputs) if isinstance(tensor, Tensor))


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
