"""Detectors on streams: boxes drawn, in words, and in the forms that other programs read."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vidistill.data.datasets.coco_video import coco_video
from vidistill.data.datasets.mot import mot
from vidistill.data.sequences.boxes import Boxes
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.normalise import Normalisation
from vidistill.stream.sinks import Source, open_sink
from vidistill.stream.stream import Stream
from vidistill.students.card import Card
from vidistill.students.files import load_student, save_student
from vidistill.students.student import HeldOutput
from vidistill.tasks import Naming
from vidistill.tasks.detection import Detection
from vidistill.tasks.detection.show import draw_detections

NAMES = ("cat", "dog")


class Brightest(nn.Module):
    """Says where the frame is bright: anchors of 8×8 pixels, whose logit for a dog is their brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.look = nn.Conv2d(8, 8, 8, stride=8, bias=False)
        self.last = nn.Conv2d(8, 1, 1)
        nn.init.ones_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        nn.init.constant_(self.look.weight, 1 / 64 / 3 / 8 / 8)
        nn.init.ones_(self.last.weight)
        nn.init.constant_(self.last.bias, -5.0)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        dog = self.last(10 * self.look(self.first(frames))).flatten(1)[..., None]
        height, width = frames.shape[-2] // 8, frames.shape[-1] // 8
        y, x = torch.meshgrid(8.0 * torch.arange(height), 8.0 * torch.arange(width), indexing="ij")
        anchors = torch.stack([x, y, x + 8, y + 8], dim=-1).reshape(1, -1, 4)
        logits = torch.cat([torch.full_like(dog, -9.0), dog], dim=2)
        return {
            "logits": logits,
            "regression": torch.zeros(len(frames), dog.shape[1], 4),
            "anchors": anchors.expand(len(frames), -1, -1),
        }


def test_boxes_of_resized_frames_are_told_in_the_frames_own_pixels(path) -> None:
    doubled = [image.repeat(2, axis=0).repeat(4, axis=1) for image in frames()]
    wide = [image.repeat(2, axis=1) for image in frames()]  # what is left of a doubled frame at half its height
    expected, found = outputs(path, wide), outputs(path, doubled, height=32)
    assert len(expected[-1].prediction) > 0
    for output, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(output.prediction, other.prediction * [2, 2, 2, 2, 1, 1], rtol=1e-5)


def frames() -> list[np.ndarray]:
    """A square that walks right by its own width from the second frame on; the key frame shows nothing."""
    images = [np.zeros((32, 48, 3), dtype=np.uint8) for _ in range(4)]
    for place, image in enumerate(images[1:]):
        image[8:16, 8 * place : 8 * place + 8] = 255
    return images


@pytest.fixture
def path(tmp_path: Path) -> Path:
    method = Delta(key_frame_interval=4)
    plain = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    card = Card(task=Detection(num_classes=2), normalisation=plain, class_names=NAMES, key_frame_interval=4)
    save_student(
        tmp_path / "student.safetensors",
        method.finish(method.prepare(Brightest(), torch.zeros(1, 3, 32, 48), card=card)),
    )
    return tmp_path / "student.safetensors"


def outputs(path: Path, images: list[np.ndarray], **options) -> list:
    return list(Stream(load_student(path, Brightest()), **options)(images))


def test_a_key_frame_without_detections_and_delta_frames_with_some(path: Path) -> None:
    found = outputs(path, frames())
    assert [output.is_key_frame for output in found] == [True, False, False, False]
    assert [len(output.prediction) for output in found] == [0, 1, 1, 1]
    assert found[0].prediction.shape == (0, 6)
    for place, output in enumerate(found[1:]):
        np.testing.assert_allclose(output.prediction[0, :4], [8 * place, 8, 8 * place + 8, 16], atol=1e-4)
        assert output.prediction[0, 4] == 1
        assert 0.9 < output.prediction[0, 5] < 1


def test_a_held_key_frame_without_detections_stays_empty() -> None:
    held = HeldOutput(Brightest())
    key, state = held(torch.zeros(1, 3, 32, 48))
    later, _ = held(torch.ones(1, 3, 32, 48), state)
    assert all(torch.equal(key[name], later[name]) for name in key)


def write_clip(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


def sink_to(path: Path, out: Path, source: str | None = None):
    return open_sink(str(out), load_student(path, Brightest()), Source(fps=10, path=source))


def test_a_coco_file_is_read_back_with_its_frames(path: Path, tmp_path: Path) -> None:
    images = frames()
    folder = write_clip(tmp_path / "clip", images)
    with sink_to(path, tmp_path / "annotations.json", str(folder)) as sink:
        for output in outputs(path, images):
            sink.write(output)
    dataset = coco_video(tmp_path)
    assert dataset.class_names == NAMES
    [sequence] = dataset.sequences
    assert [len(sequence.boxes(i)) for i in range(4)] == [0, 1, 1, 1]
    assert sequence.boxes(2).xyxy.tolist() == [[8, 8, 16, 16]]
    assert sequence.boxes(2).labels.tolist() == [1]
    assert sequence.boxes(2).scores[0] == pytest.approx(outputs(path, images)[2].prediction[0, 5])
    assert (sequence.image(3) == images[3]).all()


def test_a_coco_file_of_a_video_is_read_back_with_the_video(path: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for image in frames():
            writer.write(image)
    with sink_to(path, tmp_path / "boxes" / "annotations.json", str(tmp_path / "clip.mp4")) as sink:
        for output in outputs(path, frames()):
            sink.write(output)
    sequence = coco_video(tmp_path / "boxes", frames=(2, 4)).sequences[0]
    assert len(sequence) == 2
    assert sequence.boxes(0).xyxy.tolist() == [[8, 8, 16, 16]]
    ys, xs = np.nonzero(sequence.image(0)[..., 0] > 128)
    assert (ys.min(), xs.min()) == (8, 8)
    contents = json.loads((tmp_path / "boxes" / "annotations.json").read_text())
    contents["images"] += [contents["images"][3] | {"id": 9, "frame_id": 4}]
    (tmp_path / "boxes" / "annotations.json").write_text(json.dumps(contents))
    with pytest.raises(UserError, match="has 4 frames, expected 5 by its frame_ids"):
        coco_video(tmp_path / "boxes")
    (tmp_path / "clip.mp4").unlink()
    with pytest.raises(UserError, match=r"clip\.mp4: video not found"):
        coco_video(tmp_path / "boxes")


def test_mot_text_is_read_back_as_ground_truth(path: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "img1", frames())
    with sink_to(path, tmp_path / "gt" / "gt.txt") as sink:
        for output in outputs(path, frames()):
            sink.write(output)
    first = (tmp_path / "gt" / "gt.txt").read_text().splitlines()[0].split(",")
    assert first[:6] == ["2", "-1", "1", "9", "8", "8"]
    sequence = mot(tmp_path, class_names=NAMES, all_classes=NAMES).sequences[0]
    assert [len(sequence.boxes(i)) for i in range(4)] == [0, 1, 1, 1]
    assert sequence.boxes(3).xyxy.tolist() == [[16, 8, 24, 16]]


def test_slivers_at_the_border_are_read_back_from_mot_text(path: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "img1", frames())
    rows = [[47.998, 8, 48, 16, 1, 0.5], [0, 8, 1e-7, 16, 0, 0.5], [3, np.nextafter(np.float32(32), 0), 9, 32, 0, 0.5]]
    with sink_to(path, tmp_path / "gt" / "gt.txt") as sink:
        sink.write(replace(outputs(path, frames())[0], prediction=np.array(rows, np.float32)))
    boxes = mot(tmp_path, class_names=NAMES, all_classes=NAMES).sequences[0].boxes(0)
    np.testing.assert_allclose(boxes.xyxy, np.array(rows)[:, :4], atol=2e-6)
    assert boxes.labels.tolist() == [1, 0, 0]


def test_drawn_and_in_words(path: Path, tmp_path: Path) -> None:
    found = outputs(path, frames())
    with sink_to(path, tmp_path / "drawn.mp4") as sink:
        for output in found:
            sink.write(output)
    with sink_to(path, tmp_path / "words.jsonl") as sink:
        for output in found:
            sink.write(output)
    lines = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]
    assert lines[0]["boxes"] == []
    assert lines[1]["boxes"][0]["class"] == "dog"
    assert lines[1]["boxes"][0]["box"] == [0, 8, 8, 16]


@pytest.mark.parametrize(("label", "same_as"), [(254, 254), (255, 0), (256, 1), (300, 45)])
def test_more_classes_than_colours_are_drawn(label: int, same_as: int) -> None:
    naming = Naming(class_names=("",) * 400)
    blank = np.zeros((20, 20, 3), dtype=np.uint8)
    drawn = draw_detections(blank, Boxes.of([[5, 5, 15, 15]], [label]), naming)
    assert drawn[5, 10].tolist() == naming.colours[same_as].tolist()
    assert drawn.any()


@pytest.mark.parametrize(("name", "left"), [("boxes.json", []), ("boxes.txt", ["boxes.txt"])])
def test_what_breaks_off_leaves_whole_lines_or_nothing(path: Path, tmp_path: Path, name: str, left: list[str]) -> None:
    (tmp_path / "out").mkdir()
    output = outputs(path, frames())[1]

    def broken() -> None:
        with sink_to(path, tmp_path / "out" / name) as sink:
            sink.write(output)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert [file.name for file in (tmp_path / "out").iterdir()] == left
    if left:
        lines = (tmp_path / "out" / name).read_text().splitlines(keepends=True)
        assert len(lines) == len(output.prediction)
        assert all(line.endswith(",-1,-1\n") for line in lines)


def test_folders_and_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    for name in ("folder", "boxes.csv"):
        with pytest.raises(UserError, match=r"\.json or \.txt"):
            sink_to(path, tmp_path / name)
