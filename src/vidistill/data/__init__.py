"""The door to the data sets: `DATASETS[name](root, …)` gives a `VideoDataset`."""

from collections.abc import Callable

from vidistill.data.camvid import camvid
from vidistill.data.clip import VideoDataset

DATASETS: dict[str, Callable[..., VideoDataset]] = {"camvid": camvid}
