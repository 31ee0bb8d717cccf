"""The checkpoints of a run: the last one, and while the run lasts the one before it, in case it diverges."""

import os
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from vidistill.config import Values
from vidistill.errors import UserError
from vidistill.files import writing
from vidistill.students.files import load_checkpoint, save_checkpoint

LARGEST_WEIGHT = 1e6  # of a network whose samples may be at fault
GROWN = 10.0  # a loss so many times its median means that the weights were already running away


class Checkpoints:
    """`checkpoint.pt` in the run's folder. `checkpoint_before.pt` beside it is the one that it replaced."""

    def __init__(self, folder: Path) -> None:
        self.path, self._before = folder / "checkpoint.pt", folder / "checkpoint_before.pt"
        self._note = folder / "diverged.txt"

    def exist(self) -> bool:
        """Whether there is one to go on from."""
        if self._before.exists() and not self.path.exists():  # killed between two renames
            os.replace(self._before, self.path)
        return self.path.exists()

    @property
    def has_diverged(self) -> bool:
        """Whether the run stopped because it diverged, so that it may go on with other rates."""
        return self._note.exists()

    def save(self, contents: Values, *, is_last: bool) -> None:
        """Writes one. is_last: of the run."""
        with writing(self.path):
            if self.path.exists():
                os.replace(self.path, self._before)
            save_checkpoint(self.path, contents)
            self._note.unlink(missing_ok=True)
            if is_last:
                self._before.unlink(missing_ok=True)

    def load(self) -> Values:
        """The last one. Errors: UserError where it is none of a run of ours."""
        contents = load_checkpoint(self.path)
        parts = {"step": int, "student": dict, "optimizer": dict, "method": dict}
        is_ours = isinstance(contents, dict) and all(isinstance(contents.get(k), kind) for k, kind in parts.items())
        if not is_ours or not 0 <= contents["step"] < 2**31:
            raise UserError(f"{self.path}: is not the checkpoint of a run; delete it, or choose another out=")
        return contents

    def roll_back(self, reason: str, losses: dict[int, float]) -> str:
        """After a run has diverged: leaves the last checkpoint from before, and says which it is.

        reason: is kept in `diverged.txt`. losses: by step.
        """
        with writing(self.path):
            if self.exist() and not self._is_sound(losses):
                self.path.unlink()
            kept = f"the checkpoint of step {self.load()['step']} is kept" if self.exist() else ""
            self._note.write_text(reason + "\n", encoding="utf-8")
        return kept or "no checkpoint is left, so the run begins again"

    def _is_sound(self, losses: dict[int, float]) -> bool:
        """Whether the last one is of a time when the loss was as before. Its weights show in the next step's loss."""
        contents = self.load()
        step = contents["step"]
        before = [loss for number, loss in losses.items() if number <= step]
        after = losses.get(step + 1)
        if after is not None and before:
            return after <= GROWN * median(before)
        # the next step had none: its samples may be at fault, or the weights
        return not self._before.exists() and _largest(contents["student"]) <= LARGEST_WEIGHT


def _largest(tensors: dict[str, Tensor]) -> float:
    """The largest magnitude."""
    return max((float(tensor.abs().max()) for tensor in tensors.values() if tensor.numel()), default=0.0)


def is_finite(values: object) -> bool:
    """Whether all numbers of all tensors in dicts and lists are."""
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool(torch.isfinite(values).all())
    if isinstance(values, dict):
        return all(is_finite(value) for value in values.values())
    return all(is_finite(value) for value in values) if isinstance(values, list | tuple) else True
