"""The door to the data sets: `DATASETS[name](root, …)` gives a `VideoDataset`."""

from collections.abc import Callable

from vidistill.data.camvid import camvid
from vidistill.data.cityscapes import cityscapes
from vidistill.data.clip import VideoDataset
from vidistill.data.davis import davis
from vidistill.data.labelled_videos import labelled_videos
from vidistill.data.super_resolution import high_resolution, reds, vid4, vimeo90k
from vidistill.data.synthetic import synthetic
from vidistill.data.synthetic_actions import synthetic_actions
from vidistill.data.videos import videos

DATASETS: dict[str, Callable[..., VideoDataset]] = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "davis": davis,
    "labelled_videos": labelled_videos,
    "synthetic": synthetic,
    "synthetic_actions": synthetic_actions,
    "high_resolution": high_resolution,
    "reds": reds,
    "vid4": vid4,
    "videos": videos,
    "vimeo90k": vimeo90k,
}
