"""Stages of two networks: which belong together, their features in one form, and adapters between them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from vidistill.errors import UserError, nearest
from vidistill.models.clips import size_errors, to_clip_features
from vidistill.models.declares import declared
from vidistill.ops.modules import evaluating
from vidistill.students.checkpointing import without_checkpointing


@dataclass(frozen=True)
class StagePair:
    """The module paths of two stages that are compared."""

    student: str
    teacher: str

    @property
    def key(self) -> str:
        """Both paths as one submodule name, which must not contain a dot; every pair has another."""
        return f"{self.student}:{self.teacher}".replace(".", "/")


def match_stages(
    student: nn.Module, teacher: nn.Module, stages: int | Sequence[tuple[str, str]] | None
) -> list[StagePair]:
    """The pairs of stages: those given, or the last `stages` of both networks, or with None as many as both have.

    Errors: UserError where a network does not say what its stages are, or has too few; it lists those that exist.
    """
    if stages and not isinstance(stages, int):
        return [StagePair(*pair) for pair in stages]
    ours, theirs = stages_of(student, "student"), stages_of(teacher, "teacher")
    most = min(len(ours), len(theirs))
    count = most if stages is None else stages if isinstance(stages, int) else 0  # an empty list
    if not 1 <= count <= most:
        raise UserError(
            f"{count} stages cannot be matched: the student has {', '.join(ours)}; the teacher has {', '.join(theirs)}"
        )
    return [StagePair(s, t) for s, t in zip(ours[-count:], theirs[-count:], strict=True)]


def stages_of(network: nn.Module, role: str) -> Sequence[str]:
    """The stages that a network declares. Errors: UserError where it declares none."""
    stages = declared(network).stages
    if not stages:
        raise UserError(
            f"the {role} {type(network).__name__} does not say what its stages are; give method.stages as pairs of "
            "module paths, [[student's, teacher's], …]"
        )
    return stages


@contextmanager
def tapped(network: nn.Module, paths: Sequence[str], *, inputs: bool = False) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the outputs of the modules at `paths` while the block runs: by path, a list with one for each call.

    inputs: collect their first arguments instead.

    Errors: UserError for a path that the network does not have, with the nearest; and, when the block ends without an
    error, for a module that never ran.
    """
    modules = dict(network.named_modules())
    calls: dict[str, list[Tensor]] = {path: [] for path in paths}
    for path in paths:
        if path not in modules:
            raise UserError(f"{type(network).__name__} has no module '{path}' to tap; {nearest(path, modules)}")

    def tap(path: str) -> RemovableHandle:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            calls[path].append(arguments[0] if inputs else output)

        return modules[path].register_forward_hook(hook)

    handles = [tap(path) for path in paths]
    try:
        with without_checkpointing():
            yield calls
    finally:
        for handle in handles:
            handle.remove()
    for path, tensors in calls.items():
        if not tensors:
            raise UserError(f"the module '{path}' of {type(network).__name__} never runs; tap another")


def run_with_features(network: nn.Module, clips: Tensor, paths: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
    """The network's outputs for clips (B, T, 3, H, W), and the features (B, T', C, h, w) of the stages at `paths`.

    The features of a stage that is called once for each of several parts of the clip are joined along time.
    Errors: as `tapped`; UserError for a stage that returns no feature map in the network's layout.
    """
    with tapped(network, list(dict.fromkeys(paths))) as calls:
        outputs = network(clips)
    layout = declared(network).feature_layout
    features = {}
    for path, tensors in calls.items():
        try:
            parts = [to_clip_features(tensor, layout, num_clips=len(clips)) for tensor in tensors]
        except (AttributeError, ValueError) as error:  # no tensor, or one of another shape
            raise UserError(
                f"the stage '{path}' of {type(network).__name__} returns no feature map ({error}); "
                "name another in method.stages"
            ) from error
        features[path] = torch.cat(parts, dim=1)
    return outputs, features


def feature_shapes(network: nn.Module, clips: Tensor, paths: Sequence[str]) -> dict[str, torch.Size]:
    """The shapes (B, T', C, h, w) of the stages at `paths`, from one run in evaluation mode.

    Errors: as `tapped`; UserError for clips too small for the network.
    """
    with evaluating(network), torch.no_grad(), size_errors(network, clips):
        _, features = run_with_features(network, clips, paths)
    return {path: feature.shape for path, feature in features.items()}


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's features (B, T, C, h, w) at the teacher's T, h and w: linear in time, bilinear in space.

    C may differ between the two.
    """
    size = (teacher.shape[1], *teacher.shape[-2:])
    if (student.shape[1], *student.shape[-2:]) == size:
        return student
    if student.shape[1] == size[0]:
        frames = F.interpolate(student.flatten(0, 1), size=size[1:], mode="bilinear", align_corners=False)
        return frames.unflatten(0, student.shape[:2])
    resized = F.interpolate(student.transpose(1, 2), size=size, mode="trilinear", align_corners=False)
    return resized.transpose(1, 2)


def make_adapters(channels: dict[StagePair, tuple[int, int]]) -> nn.ModuleDict:
    """A 1×1 projection, for training only, for each pair of stages whose channels differ. [ours]

    channels: the student's and the teacher's, by pair.
    """
    return nn.ModuleDict(
        {pair.key: nn.Conv2d(ours, theirs, 1) for pair, (ours, theirs) in channels.items() if ours != theirs}
    )


def adapted(features: Tensor, pair: StagePair, adapters: nn.ModuleDict) -> Tensor:
    """(B, T, C', h, w): the student's features (B, T, C, h, w) in the teacher's channels."""
    if pair.key not in adapters:
        return features
    projected: Tensor = adapters[pair.key](features.flatten(0, 1))
    return projected.unflatten(0, features.shape[:2])
