"""The tasks: `TASKS` is the only place where one is registered. A new task is a folder here and one line below."""

from vidistill.config import Values, call, pick
from vidistill.data.datasets import DATASETS as COMMON_DATASETS
from vidistill.report.table import Metric
from vidistill.tasks.contract import Naming, StreamOutput, Task, require_same_frames
from vidistill.tasks.depth import Depth
from vidistill.tasks.detection import Detection
from vidistill.tasks.recognition import Recognition
from vidistill.tasks.segmentation import Segmentation
from vidistill.tasks.super_resolution import SuperResolution

__all__ = ["DATASETS", "METRICS", "TASKS", "Naming", "StreamOutput", "Task", "require_same_frames", "task_of"]

TASKS: dict[str, type[Task]] = {  # the first is a recipe's default
    "segmentation": Segmentation,
    "recognition": Recognition,
    "super_resolution": SuperResolution,
    "detection": Detection,
    "depth": Depth,
}

DATASETS: Values = COMMON_DATASETS | {
    name: builder for task in TASKS.values() for name, builder in task.datasets.items()
}

_by_key: dict[str, Metric] = {}
for _task in TASKS.values():
    for _metric in _task.metrics:
        _by_key.setdefault(_metric.key, _metric)
METRICS = tuple(_by_key.values())  # every metric once, for results whose task is not known


def task_of(values: Values, *, where: str = "task") -> Task:
    """A task from `{name, …settings}`.

    Raises:
        UserError: the name, a setting or a value is unknown; it names the nearest.
    """
    task, settings = pick(TASKS, {"name": next(iter(TASKS)), **values}, where=where)
    return call(task, settings, where=where)
