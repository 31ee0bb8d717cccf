"""What a run is made of: a YAML file with a default for every number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml
from pydantic_core import PydanticCustomError

from vidistill.config import (
    Pixels,
    Settings,
    Values,
    Weight,
    Whole,
    call,
    override,
    pick,
    plain,
    read_yaml,
    validate,
    whole,
)
from vidistill.files import atomic_path
from vidistill.methods import METHODS, Method
from vidistill.ops.normalise import Normalisation
from vidistill.runs.train import OptimSettings
from vidistill.runtimes import choose_runtime
from vidistill.tasks import TASKS, Task, task_of


class ViewSettings(Settings):
    """What a network of clips sees of each, where that is not all of it; see `ClipView`.

    num_frames: every second, third … of the clip's frames. size: the square is resized to this side inside the model.
    detail: and to this side before that, so that it holds no finer detail.
    """

    num_frames: Annotated[int, *whole(1, 1024)] | None = None
    size: Pixels | None = None
    detail: Pixels | None = None


class NetworkSettings(Settings):
    """A network by its name in a library, with the weights in `checkpoint` where there are some.

    A checkpoint that a run of ours saved knows its network, so the name may be left out. backbone: published weights
    of the network's backbone alone, as timm, torchvision or a package gives them. view: for networks of clips.
    """

    name: str | None = None
    library: str = "vidistill"
    options: Values = {}
    checkpoint: Path | None = None
    backbone: Path | None = None
    view: ViewSettings = ViewSettings()


def _normalisation(values: Values | Normalisation | None, info: pydantic.ValidationInfo) -> Normalisation | None:
    """None for an empty mapping. A value that is not given keeps the task's; for a teacher's own frames, ImageNet's."""
    if not isinstance(values, dict):
        return values
    task = info.data.get("task")  # which stands beside a recipe's normalisation, but not beside a teacher's
    where, usual = ("teacher.normalisation", Normalisation()) if task is None else ("normalisation", task.normalisation)
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return call(Normalisation, usual.to_dict() | lists, where=where) if values else None


OptionalNormalisation = Annotated[
    Normalisation | None, pydantic.BeforeValidator(_normalisation), pydantic.PlainSerializer(plain)
]


class TeacherSettings(NetworkSettings):
    """cache: a folder for its outputs on clips, so that a clip that comes again, see `data.clip.draws`, is free.

    normalisation: of its frames; by default as a run of ours trained it, else the run's.
    """

    cache: Path | None = None
    normalisation: OptionalNormalisation = None


class StudentSettings(NetworkSettings):
    """The student starts as a copy of the teacher, or is a network of its own."""

    from_: Literal["teacher"] | None = pydantic.Field(default=None, alias="from")


class DataSettings(Settings):
    """Sources are `{name: a key of DATASETS, …its options}`.

    labels: "given", what the data has; "pseudo", and on frames without any the teacher's confident classes; "none",
    the teacher's soft predictions alone.
    clip: how training clips are drawn, the task's `clip_settings`.
    """

    train: list[Values] = []
    evaluate: list[Values] = []
    labels: Literal["given", "pseudo", "none"] = "given"
    clip: pydantic.SerializeAsAny[Settings] | Values = {}


class MeasureSettings(Settings):
    """Where and how the run's networks are scored and timed, see `vidistill.runtimes.deploy`."""

    runtime: str | None = None
    precision: str = "float32"
    threads: Annotated[int, *whole(0, 1024)] = 0

    @pydantic.model_validator(mode="after")
    def _known_before_training(self) -> "MeasureSettings":
        choose_runtime(self.runtime, self.precision, where="measure.runtime")
        return self


def _method(values: Values | Method) -> Method:
    if not isinstance(values, dict):
        if not hasattr(values, "losses"):
            raise PydanticCustomError("dict_type", "must be a mapping")
        return values
    method, options = pick(METHODS, {"name": "supervised", **values}, where="method")
    return call(method, options, where="method")


class Recipe(Settings):
    """A run, whole. Every number has a default.

    task, method: the settings of the chosen ones; in YAML `{name, …settings}`. normalisation: by default what the
    teacher was trained with, or, of a network by name, what its published weights want where it says so, else the
    task's.
    """

    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    task: Annotated[
        Task,
        pydantic.BeforeValidator(lambda v: task_of(v) if isinstance(v, dict) else v),
        pydantic.PlainSerializer(Task.to_values),
    ] = pydantic.Field(default_factory=lambda: next(iter(TASKS.values()))())
    teacher: TeacherSettings | None = None
    student: StudentSettings = StudentSettings()
    method: Annotated[
        Method, pydantic.PlainValidator(_method), pydantic.PlainSerializer(lambda m: {"name": m.name, **plain(m)})
    ] = pydantic.Field(default_factory=METHODS["supervised"])
    losses: dict[str, Weight] = {}
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    normalisation: OptionalNormalisation = None
    measure: MeasureSettings = MeasureSettings()
    tensorboard: bool = False
    seed: Whole = 0
    out: Path = Path("runs/run")

    @pydantic.model_validator(mode="after")
    def _clip_of_the_task(self) -> "Recipe":
        if isinstance(self.data.clip, dict):
            clip = validate(self.task.clip_settings, self.data.clip, where="data.clip")
            self.data = self.data.model_copy(update={"clip": clip})
        return self


def load_recipe(path: str | Path, assignments: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML with key=value overrides.

    path: or a run folder, which holds its own.

    Raises:
        UserError: it cannot be read, or a key or value is wrong; it names the file and the key.
    """
    path = recipe_file(path)
    return validate(Recipe, override(read_yaml(path), assignments), where=str(path))


def recipe_file(path: str | Path) -> Path:
    """The recipe's file, also of a run folder."""
    path = Path(path)
    return path / "recipe.yaml" if path.is_dir() else path


def inputs_of(recipe: Recipe) -> list[str | Path | None]:
    """The files and folders that a recipe reads, as far as it names them."""
    networks = [recipe.student, *([] if recipe.teacher is None else [recipe.teacher])]
    files = [file for network in networks for file in (network.checkpoint, network.backbone)]
    sources = [*recipe.data.train, *recipe.data.evaluate]
    data = [value for source in sources for name, value in source.items() if name != "name" and isinstance(value, str)]
    return [*files, *data]


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """The recipe with every default spelled out."""
    values = recipe.model_dump(mode="json", by_alias=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))
