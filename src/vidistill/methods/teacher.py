"""The frozen reference network: never trained, never changed, not even by batch normalisation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.methods.features import run_with_features
from vidistill.models.outputs import logits_of
from vidistill.ops.clip_view import View

TOLERANCE = 1e-2  # of a tensor's scale; what is kept is in half precision


CHECK_EVERY = 50  # batches with hits


OUTPUT = "output"


class TeacherCache:
    """One file a clip, in half precision. A spot check against the live teacher comes with the first hits of a run and
    with every fiftieth batch after.

    Errors: UserError where a file holds another clip than its name says, or what the live teacher does not say.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.hits = 0
        self.misses = 0
        self._batches = 0
        self._teacher = b""

    def run(self, network: nn.Module, clips: Tensor, paths: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """As `run_with_features` in evaluation mode. clips: (B, T, 3, S, S), as the network is given them."""
        keys = [self._key(network, clip, paths) for clip in clips]
        found = [self._read(key) for key in keys]
        missing = [i for i, entry in enumerate(found) if entry is None]
        known = [i for i, entry in enumerate(found) if entry is not None]
        if missing:
            for i, entry in zip(missing, self._ask(network, clips[missing], paths), strict=True):
                found[i] = entry
                self._write(keys[i], entry)
        if known:
            if self._batches % CHECK_EVERY == 0:
                self._check(keys[known[0]], found[known[0]] or {}, self._ask(network, clips[known[:1]], paths)[0])
            self._batches += 1
        self.hits, self.misses = self.hits + len(known), self.misses + len(missing)
        entries = [entry for entry in found if entry is not None]
        stacked = {name: torch.stack([e[name].float() for e in entries]).to(clips.device) for name in entries[0]}
        return stacked.pop(OUTPUT), stacked

    def _key(self, network: nn.Module, clip: Tensor, paths: Sequence[str]) -> str:
        if not self._teacher:
            self._teacher = _fingerprint(network)
        digest = hashlib.blake2b(self._teacher, digest_size=20)
        kind = clip.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else clip.dtype
        digest.update(repr((sorted(set(paths)), tuple(clip.shape), str(clip.dtype), str(precision))).encode())
        digest.update(clip.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @staticmethod
    def _ask(network: nn.Module, clips: Tensor, paths: Sequence[str]) -> list[dict[str, Tensor]]:
        outputs, features = run_with_features(network, clips, paths)
        said = {OUTPUT: logits_of(outputs), **features}
        return [{name: tensor[i].detach().half().cpu() for name, tensor in said.items()} for i in range(len(clips))]

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
            raise UserError(f"{path}: cannot be read ({error}); remove it, the teacher will be asked again") from error

    def _write(self, key: str, entry: dict[str, Tensor]) -> None:
        with atomic_path(self._file(key)) as temporary:
            safetensors.torch.save_file({n: t.contiguous() for n, t in entry.items()}, temporary, metadata={"key": key})

    def _check(self, key: str, kept: dict[str, Tensor], live: dict[str, Tensor]) -> None:
        for name, tensor in live.items():
            gap = (kept[name].float() - tensor.float()).abs().max() / tensor.float().abs().max().clamp(min=1e-6)
            if not gap <= TOLERANCE:
                raise UserError(
                    f"{self._file(key)}: the teacher says otherwise today ('{name}' differs by {float(gap):.3g} of its "
                    f"scale); remove the cache {self.folder}"
                )


def _fingerprint(network: nn.Module) -> bytes:
    """A hash of how the network is built and of its tensors, for padding or a shift in time are in no tensor."""
    digest = hashlib.blake2b(repr(network).encode(), digest_size=20)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


class FrozenTeacher:
    """A network in evaluation mode that takes no gradient.

    Not a module on purpose: it is no part of the student, its optimiser, its checkpoint or its process group.
    view: what it sees of a clip; None for a network of single frames. cache: remembers what it said of clips.
    """

    def __init__(self, network: nn.Module, view: View | None = None, cache: TeacherCache | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.view = view
        self.cache = cache

    def seen(self, clips: Tensor) -> Tensor:
        """What the network is given of a batch."""
        return clips if self.view is None else self.view(clips)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Any:
        """The network's outputs for normalised frames (B, 3, H, W), or clips (B, T, 3, H, W)."""
        return self.network(inputs) if self.view is None else self.run(inputs, ())[0]

    @torch.no_grad()
    def run(self, clips: Tensor, paths: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
        """The outputs of normalised clips (B, T, 3, H, W), and the features (B, T', C, h, w) of the stages `paths`."""
        seen = self.seen(clips)
        if self.cache is None:
            return run_with_features(self.network, seen, paths)
        return self.cache.run(self.network, seen, paths)

    def observations(self) -> dict[str, float]:
        """For the log: the share of clips so far that the cache knew, where there is one."""
        if self.cache is None or not self.cache.hits + self.cache.misses:
            return {}
        return {"cache_hits": self.cache.hits / (self.cache.hits + self.cache.misses)}

    def to(self, device: torch.device) -> "FrozenTeacher":
        self.network.to(device)
        return self
