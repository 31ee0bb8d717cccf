"""What a COCO-VID file holds, made video by video and frame by frame."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidistill.data.boxes import Boxes
from vidistill.data.frame_files import unique_name
from vidistill.files import atomic_path

Record = dict[str, Any]
PARTS = ("videos", "images", "annotations", "categories")


class CocoContents:
    """Category k + 1 is class k; ids count from 1, the frames of a video from 0."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.videos: list[Record] = []
        self.images: list[Record] = []
        self.annotations: list[Record] = []
        self.categories = [{"id": label, "name": name} for label, name in enumerate(class_names, 1)]
        self._num_frames = 0

    def add_video(self, name: str, file_name: str | None = None) -> str:
        """The frames added from now on are this video's, whose name is returned: another if an earlier video has it.

        file_name: where its frames are no image files.
        """
        name = unique_name(name, {video["name"] for video in self.videos})
        place = {} if file_name is None else {"file_name": file_name}
        self.videos.append({"id": len(self.videos) + 1, "name": name} | place)
        self._num_frames = 0
        return name

    def add_frame(self, files: Sequence[str], size: tuple[int, int], boxes: Boxes) -> None:
        """The next frame of the video. files: those of all its frames, or none, where they are no files."""
        frame_id, video = self._num_frames, self.videos[-1]
        self._num_frames += 1
        image_id = len(self.images) + 1
        file_name = files[frame_id] if files else f"{video['name']}/{frame_id:06d}.png"
        self.images.append(
            {
                "id": image_id, "video_id": video["id"], "frame_id": frame_id, "file_name": file_name,
                "height": size[0], "width": size[1],
            }
        )  # fmt: skip
        for place, (left, top, right, bottom) in enumerate(boxes.xyxy.astype(np.float64).tolist()):
            record: Record = {
                "id": len(self.annotations) + 1, "image_id": image_id, "category_id": int(boxes.labels[place]) + 1,
                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                "iscrowd": int(boxes.crowd[place]) if boxes.crowd is not None else 0,
            }  # fmt: skip
            if boxes.instances is not None:
                record["instance_id"] = int(boxes.instances[place])
            if boxes.scores is not None:
                record["score"] = float(boxes.scores[place])
            self.annotations.append(record)

    def write(self, path: Path) -> None:
        """Atomic."""
        contents = {name: getattr(self, name) for name in PARTS}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(contents), encoding="utf-8")
