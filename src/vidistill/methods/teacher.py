"""The frozen reference network: never trained, never changed, not even by batch normalisation; and its cache."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.methods.features import run_with_features
from vidistill.models.outputs import logits_of
from vidistill.ops.clip_view import View
from vidistill.ops.digest import digest
from vidistill.students.files import save_tensors

OUTPUT = "output"  # the name of the logits in a cached file, beside the paths of the stages
CHECK_EVERY = 50  # batches with hits
TOLERANCE = 1e-2  # of a tensor's largest magnitude; cached values are in half precision


class TeacherCache:
    """A teacher's outputs for clips on disk: one file for each clip, in half precision.

    The first batch with hits in a run, and every fiftieth after it, compares one cached clip with the live teacher.

    Args:
        folder: Where the files are; created when the first is written.

    Raises:
        UserError: On `run`: a file is of another clip than its name says, cannot be read, or differs from what the
            live teacher gives.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.hits = 0
        self.misses = 0
        self._batches = 0
        self._teacher = b""

    def run(self, network: nn.Module, clips: Tensor, paths: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """As `run_with_features` in evaluation mode. clips: (B, T, 3, S, S), as the network gets them."""
        keys = [self._key(network, clip, paths) for clip in clips]
        entries = {i: entry for i, key in enumerate(keys) if (entry := self._read(key)) is not None}
        hits, missing = list(entries), [i for i in range(len(keys)) if i not in entries]
        if missing:
            for i, entry in zip(missing, self._ask(network, clips[missing], paths), strict=True):
                entries[i] = entry
                tensors = {name: tensor.contiguous() for name, tensor in entry.items()}
                save_tensors(self._file(keys[i]), tensors, {"key": keys[i]})
        if hits:
            if self._batches % CHECK_EVERY == 0:
                self._check(keys[hits[0]], entries[hits[0]], self._ask(network, clips[hits[:1]], paths)[0])
            self._batches += 1
        self.hits, self.misses = self.hits + len(hits), self.misses + len(missing)
        in_order = [entries[i] for i in range(len(keys))]
        stacked = {name: torch.stack([e[name].float() for e in in_order]).to(clips.device) for name in in_order[0]}
        return stacked.pop(OUTPUT), stacked

    def _key(self, network: nn.Module, clip: Tensor, paths: Sequence[str]) -> str:
        """A hash of all that the outputs depend on: the teacher, the stages, the precision and the clip's values."""
        if not self._teacher:
            # the layers count, as padding or a shift in time are in no tensor
            self._teacher = digest(repr(network), network.state_dict())
        hashed = hashlib.blake2b(self._teacher, digest_size=20)
        kind = clip.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else clip.dtype
        hashed.update(repr((sorted(set(paths)), tuple(clip.shape), str(clip.dtype), str(precision))).encode())
        hashed.update(clip.detach().cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    @staticmethod
    def _ask(network: nn.Module, clips: Tensor, paths: Sequence[str]) -> list[dict[str, Tensor]]:
        """The live teacher's outputs and features, clip by clip, as they are cached."""
        outputs, features = run_with_features(network, clips, paths)
        tensors = {OUTPUT: logits_of(outputs), **features}
        return [{name: tensor[i].detach().half().cpu() for name, tensor in tensors.items()} for i in range(len(clips))]

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self._file(key)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    raise UserError(f"{path}: holds another clip than its name says; remove the cache {self.folder}")
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it, and the teacher will run again") from error

    def _check(self, key: str, cached: dict[str, Tensor], live: dict[str, Tensor]) -> None:
        for name, tensor in live.items():
            gap = (cached[name].float() - tensor.float()).abs().max() / tensor.float().abs().max().clamp(min=1e-6)
            if not gap <= TOLERANCE:
                raise UserError(
                    f"{self._file(key)}: the teacher gives other values now ('{name}' differs by {float(gap):.3g} of "
                    f"its scale); remove the cache {self.folder}"
                )


class FrozenTeacher:
    """A network in evaluation mode that gets no gradient.

    Not a module on purpose: it is not part of the student, its optimiser, its checkpoint or its process group.

    Args:
        network: Is changed: put into evaluation mode, its parameters frozen.
        view: What it sees of a clip; None for a network of single frames.
        cache: Keeps its outputs for clips; None to run it on every clip.
    """

    observed: ClassVar[tuple[str, ...]] = ("cache_hits",)

    def __init__(self, network: nn.Module, view: View | None = None, cache: TeacherCache | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.view = view
        self.cache = cache

    def seen(self, clips: Tensor) -> Tensor:
        """What the network gets of a batch."""
        return clips if self.view is None else self.view(clips)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Any:
        """The network's outputs for normalised frames (B, 3, H, W), or clips (B, T, 3, H, W)."""
        return self.network(inputs) if self.view is None else self.run(inputs, ())[0]

    @torch.no_grad()
    def run(self, clips: Tensor, paths: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
        """The outputs for normalised clips (B, T, 3, H, W), and the features (B, T', C, h, w) of the stages `paths`."""
        seen = self.seen(clips)
        if self.cache is None:
            return run_with_features(self.network, seen, paths)
        return self.cache.run(self.network, seen, paths)

    def observations(self) -> dict[str, float]:
        """For the log: the share of clips so far that the cache had, where there is one."""
        if self.cache is None or not self.cache.hits + self.cache.misses:
            return {}
        return {"cache_hits": self.cache.hits / (self.cache.hits + self.cache.misses)}

    def to(self, device: torch.device) -> "FrozenTeacher":
        self.network.to(device)
        return self
