"""What a run is made of, and how it is built. The only module that knows every package's door."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
import yaml
from torch import nn

from vidistill.checkpoint import atomic_path
from vidistill.config import Settings, call, choose, override, read_yaml, validate
from vidistill.data import DATASETS
from vidistill.data.augment import View
from vidistill.data.camera_motion import CameraMotion
from vidistill.data.clip import VideoDataset
from vidistill.data.training import ClipSettings, TrainingClips
from vidistill.distill import METHODS, Method
from vidistill.distill.teacher import FrozenTeacher
from vidistill.models import MODELS
from vidistill.ops.normalise import Normalisation
from vidistill.tasks import TASKS, Task
from vidistill.train import OptimSettings, Training


class NetworkSettings(Settings):
    """A network by its name in a library, with the weights in `checkpoint` where there are some."""

    name: str | None = None
    checkpoint: Path | None = None
    options: dict[str, Any] = {}


class StudentSettings(NetworkSettings):
    """The student starts as a copy of the teacher, or as a network of its own."""

    from_: Literal["teacher"] | None = pydantic.Field(default=None, alias="from")


class DataClipSettings(Settings):
    num_frames: int = pydantic.Field(2, ge=1)
    max_gap: int = pydantic.Field(9, ge=1)
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    colour: float = pydantic.Field(0.0, ge=0, le=1)
    noise: float = pydantic.Field(1.5, ge=0)
    motion: dict[str, float] = {}


class DataSettings(Settings):
    """Sources are `{name: a key of DATASETS, …its options}`; labels: False trains from the teacher alone."""

    train: list[dict[str, Any]] = []
    evaluate: list[dict[str, Any]] = []
    labels: bool = True
    clip: DataClipSettings = DataClipSettings()


class Recipe(Settings):
    """A run, whole. Every number has a default."""

    task: dict[str, Any] = {"name": "segmentation"}
    teacher: NetworkSettings | None = None
    student: StudentSettings = StudentSettings()
    method: dict[str, Any] = {"name": "supervised"}
    losses: dict[str, float] = {}
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    seed: int = 0
    out: Path = Path("runs/run")


def load_recipe(path: str | Path, assignments: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML with key=value overrides. Errors: UserError that names the file and the key."""
    return validate(Recipe, override(read_yaml(path), assignments), where=str(path))


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """The recipe with every default spelled out."""
    values = recipe.model_dump(mode="json", by_alias=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))


def build_dataset(source: dict[str, Any], *, where: str) -> VideoDataset:
    options = dict(source)
    builder = choose(DATASETS, options.pop("name", ""), where=where)
    return call(builder, options, where=where)
