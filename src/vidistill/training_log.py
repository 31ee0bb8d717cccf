"""The log of a training run: JSON lines always, TensorBoard on request."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vidistill.files import atomic_path, json_text, writing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Appends one JSON line a step to `metrics.jsonl`, after dropping the steps that a resumed run will do again."""

    def __init__(self, folder: Path, start_step: int, active: bool = True, tensorboard: bool = False) -> None:
        self.active = active
        self.path = log_file(folder)
        self._writer: SummaryWriter | None = None
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(self.path) if line["step"] <= start_step]
            with atomic_path(self.path) as temporary:
                temporary.write_text("".join(f"{json_text(line)}\n" for line in kept))
            self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - closed in __exit__
        if active and tensorboard:
            import torch.utils.tensorboard as board

            self._writer = board.SummaryWriter(str(folder / "tensorboard"), purge_step=start_step)

    def write(self, step: int, losses: dict[str, float], **rates: float) -> None:
        """One line: the step, its losses, and further numbers by name, such as the learning rate."""
        if not self.active:
            return
        values = {name: float(value) for name, value in {**losses, **rates}.items()}
        with writing(self.path):
            self._file.write(json_text({"step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.active:
            with writing(self.path):  # what a full disk refused before is tried again
                self._file.close()
        if self._writer is not None:
            self._writer.close()


def log_file(folder: Path) -> Path:
    """Of the run in `folder`."""
    return folder / "metrics.jsonl"


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`; a last line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if not isinstance(line, dict) or "step" not in line:
            break
        lines.append(line)
    return lines
