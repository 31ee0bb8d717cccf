"""What a run is made of: a YAML file with a default for every number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from vidistill.config import (Settings, override, read_yaml, validate)
from vidistill.files import atomic_path
from vidistill.runs.train import OptimSettings


class ViewSettings(Settings):
    """What a network of clips sees of each, where that is not all of it; see `ClipView`.

    num_frames: every second, third … of the clip's frames. size: the square is resized to this side inside the model.
    detail: and to this side before that, so that it holds no finer detail.
    """

    num_frames: int | None = pydantic.Field(default=None, ge=1)
    size: int | None = pydantic.Field(default=None, ge=1)
    detail: int | None = pydantic.Field(default=None, ge=1)


class NetworkSettings(Settings):
    """A network by its name in a library, with the weights in `checkpoint` where there are some.

    A checkpoint that a run of ours saved knows its network, so the name may be left out. backbone: published weights
    of the network's backbone alone, as timm, torchvision or a package gives them. view: for networks of clips.
    """

    name: str | None = None
    library: str = "vidistill"
    options: dict[str, Any] = {}
    checkpoint: Path | None = None
    backbone: Path | None = None
    view: ViewSettings = ViewSettings()


class TeacherSettings(NetworkSettings):
    """cache: a folder for what it says of clips, so that a clip that comes again, see `data.clip.draws`, is free.

    normalisation: of its frames; by default as a run of ours trained it, else the run's.
    """

    cache: Path | None = None
    normalisation: dict[str, tuple[float, float, float]] = {}


class StudentSettings(NetworkSettings):
    """The student starts as a copy of the teacher, or is a network of its own."""

    from_: Literal["teacher"] | None = pydantic.Field(default=None, alias="from")


class DataSettings(Settings):
    """Sources are `{name: a key of DATASETS, …its options}`.

    labels: "given", what the data has; "pseudo", and on frames without any the teacher's confident classes; "none",
    the teacher's soft predictions alone.
    clip: how training clips are drawn, the task's `clip_settings`.
    """

    train: list[dict[str, Any]] = []
    evaluate: list[dict[str, Any]] = []
    labels: Literal["given", "pseudo", "none"] = "given"
    clip: dict[str, Any] = {}


class Recipe(Settings):
    """A run, whole. Every number has a default. normalisation: by default what the teacher was trained with, or, of a
    network by name, what its published weights want where it says so, else ImageNet's.
    """

    task: dict[str, Any] = {"name": "segmentation"}
    teacher: TeacherSettings | None = None
    student: StudentSettings = StudentSettings()
    method: dict[str, Any] = {"name": "supervised"}
    losses: dict[str, pydantic.NonNegativeFloat] = {}
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    normalisation: dict[str, tuple[float, float, float]] = {}
    tensorboard: bool = False
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
