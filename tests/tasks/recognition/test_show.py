"""What a recognition run shows of its videos, also of those of other sizes or that break off."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.example_files import cut_short, write_image
from tests.networks import TinyClips
from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.labelled_videos import labelled_videos
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.sequences.classified import ClassifiedVideo
from vidistill.data.video.reader import VideoReader
from vidistill.ops.clip_view import ClipView
from vidistill.ops.normalise import Normalisation
from vidistill.stream.evaluate import evaluate
from vidistill.stream.pictures import write_pictures
from vidistill.students.card import Card
from vidistill.students.windows import Windowed
from vidistill.tasks.recognition import Recognition

K = 3
VIEW = ClipView(num_frames=2, sampling="dense", stride=2, crop=14, size=8)
TASK = Recognition(num_classes=K)


def network_of(width: int) -> Windowed:
    card = Card(task=TASK, class_names=("a", "b"), view=VIEW)
    model = Windowed(TinyClips(K, width=width).eval(), card).eval()
    torch.nn.init.normal_(model.network.head.weight, std=2)
    return model


@pytest.fixture
def student() -> Windowed:
    return network_of(6)


def show(folder: Path, sequences, **students: Windowed) -> None:
    write_pictures(folder, students, sequences, TASK)


def read(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "timeline.npz", allow_pickle=False) as file:
        return dict(file)


def test_probabilities_of_every_frame_of_a_video_of_each_class(student, tmp_path: Path) -> None:
    data = synthetic_actions(num_videos=6, num_frames=8, size=16, num_classes=K, seed=0)
    teacher = network_of(8)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    show(tmp_path, data.sequences, student=student, teacher=teacher)
    assert {name: torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items()} == dict.fromkeys(
        before, True
    ), "the teacher stays as it is, its norms apart"
    found = read(tmp_path)
    assert found["labels"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert found["class_names"].tolist() == ["a", "b", "2"]
    images = [image for video in data.sequences[:3] for image in video.images()]
    for name, model in (("student", student), ("teacher", teacher)):
        assert found[name].shape == (24, K)
        for index in (0, 5, 23):
            pair = np.stack([VIEW.cut(images[max(0, index - 2)]), VIEW.cut(images[index])])
            clip = torch.from_numpy(pair).permute(0, 3, 1, 2)[None]
            with torch.no_grad():
                expected = model(Normalisation()(clip))[0].softmax(1)[0]
            np.testing.assert_allclose(found[name][index], expected, atol=1e-4)
    with VideoReader(tmp_path / "side_by_side.mp4") as reader:
        assert reader.num_frames == 24


def test_videos_of_several_sizes_and_broken_ones(student, tmp_path: Path) -> None:
    for name, size in (("wide", (20, 36)), ("broken", (20, 36)), ("upright", (40, 24)), ("other", (16, 16))):
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", size=size, level=40 * i)
    cut_short(write_image(tmp_path / "broken" / "2.png", size=(64, 64)))
    (tmp_path / "none.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("broken 4 0\nwide 4 0\nnone.mp4 1\nupright 4 1\nother 4 1\n")
    data = labelled_videos(tmp_path, num_classes=K)
    show(tmp_path, data.sequences, student=student)
    found = read(tmp_path)
    assert found["labels"].tolist() == [0] * 2 + [1] * 4, "the first of each class, up to where it breaks off"
    assert found["student"].shape == (6, K)
    assert "teacher" not in found
    with VideoReader(tmp_path / "side_by_side.mp4") as reader:
        assert reader.num_frames == 6
        assert reader.width == reader.height


def broken_video(root: Path, *, broken: int) -> VideoDataset:
    for i in range(8):
        write_image(root / "video" / f"{i}.png", size=(64, 64), level=20 * i)
    cut_short(root / "video" / f"{broken}.png")
    (root / "list.txt").write_text("video 8 1\n")
    return labelled_videos(root, num_classes=K)


def test_a_video_that_breaks_off_is_shown_up_to_there(student, tmp_path: Path) -> None:
    data = broken_video(tmp_path, broken=3)
    scores = evaluate({"student": student}, data.sequences, TASK)["student"]
    assert scores["num_scored"] == 1, "no clip has the broken frame"
    show(tmp_path, data.sequences, student=student)
    assert read(tmp_path)["labels"].tolist() == [1] * 3
    with VideoReader(tmp_path / "side_by_side.mp4") as reader:
        assert reader.num_frames == 3


def test_without_a_frame_nothing_is_written(student, tmp_path: Path) -> None:
    show(tmp_path, broken_video(tmp_path, broken=0).sequences, student=student)
    assert {path.name for path in tmp_path.iterdir()} == {"video", "list.txt"}


def test_unlabelled_videos_have_no_label(student, tmp_path: Path) -> None:
    data = synthetic_actions(num_videos=2, num_frames=8, size=16, num_classes=K, seed=0)
    show(tmp_path, [video.frames for video in data.sequences], student=student)
    assert set(read(tmp_path)["labels"].tolist()) == {-1}
    assert not isinstance(data.sequences[0].frames, ClassifiedVideo)
