"""The registry of data sets: `DATASETS[name](root, …)` reads a `VideoDataset`, `WRITERS[layout]` writes one."""

from collections.abc import Callable
from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.camvid import camvid
from vidistill.data.datasets.cityscapes import cityscapes
from vidistill.data.datasets.coco_video import coco_video, write_coco_video
from vidistill.data.datasets.davis import davis
from vidistill.data.datasets.imagenet_video import imagenet_det, imagenet_vid
from vidistill.data.datasets.label_maps import label_maps
from vidistill.data.datasets.labelled_videos import labelled_videos, write_labelled_frames
from vidistill.data.datasets.mot import mot, write_mot
from vidistill.data.datasets.pets import pets
from vidistill.data.datasets.super_resolution import high_resolution, reds, vid4, vimeo90k
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.datasets.videos import videos

DATASETS: dict[str, Callable[..., VideoDataset]] = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco_video": coco_video,
    "davis": davis,
    "imagenet_det": imagenet_det,
    "imagenet_vid": imagenet_vid,
    "label_maps": label_maps,
    "labelled_videos": labelled_videos,
    "mot": mot,
    "pets": pets,
    "synthetic": synthetic,
    "synthetic_actions": synthetic_actions,
    "high_resolution": high_resolution,
    "reds": reds,
    "vid4": vid4,
    "videos": videos,
    "vimeo90k": vimeo90k,
}

# each returns what it left out, a sentence for each video, or None
WRITERS: dict[str, Callable[[VideoDataset, Path], list[str] | None]] = {
    "coco_video": write_coco_video,
    "mot": write_mot,
    "labelled_frames": write_labelled_frames,
}
