"""The registry of data sets."""

from vidistill.data.datasets import DATASETS


def test_the_registry_names_every_data_set() -> None:
    frames = ["camvid", "cityscapes", "davis", "label_maps", "synthetic", "videos"]
    whole = ["labelled_videos", "synthetic_actions"]
    boxes = ["coco_video", "imagenet_det", "imagenet_vid", "mot", "pets"]
    pairs = ["high_resolution", "reds", "vid4", "vimeo90k"]
    assert sorted(DATASETS) == sorted(frames + whole + boxes + pairs)
