"""Scores of whole videos against the plain way: cut every frame, run every view, average, count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.example_files import cut_short, write_image
from tests.networks import TinyClips
from vidistill.data.datasets.labelled_videos import labelled_videos
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.sequences.classified import ClassifiedVideo
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.ops.clip_view import ClipView
from vidistill.ops.normalise import Normalisation
from vidistill.stream.evaluate import evaluate
from vidistill.stream.stream import Stream
from vidistill.students.card import Card
from vidistill.students.windows import Windowed
from vidistill.tasks.recognition import Recognition
from vidistill.tasks.recognition.score import views_of

K = 3
VIEW = ClipView(num_frames=4, sampling="segments", stride=2, crop=14, size=8)
DATA = synthetic_actions(num_videos=6, num_frames=8, size=16, num_classes=K, seed=0)


def task_of(**options) -> Recognition:
    return Recognition(num_classes=K, **options)


@pytest.fixture
def model() -> Windowed:
    network = TinyClips(K)
    torch.nn.init.normal_(network.head.weight, std=2)
    return Windowed(network, Card(view=VIEW)).eval()


def seeing(model: Windowed, **changes) -> Windowed:
    """The model with another view."""
    return Windowed(model.network, Card(view=replace(VIEW, **changes))).eval()


def scored(model: Windowed, sequences, task: Recognition, teacher: Windowed | None = None) -> dict:
    return evaluate({"student": model} | ({"teacher": teacher} if teacher else {}), sequences, task)["student"]


def probabilities(model: Windowed, sequences, task: Recognition) -> list[np.ndarray]:
    """What is scored of each video, (K,)."""
    stream = Stream(model, task=task)
    clips = [task.clips(video, VIEW) for video in sequences]
    return [task.probabilities([stream.whole(frames) for frames in video.frames]).numpy() for video in clips]


@pytest.mark.parametrize("average", ["prob", "score"])
@torch.no_grad()
def test_probabilities_are_the_mean_over_views(model, average) -> None:
    task = task_of(num_clips=2, average=average)
    rows = scored(model, DATA.sequences, task)["predictions"]
    found = probabilities(model, DATA.sequences, task)
    for video, prediction, row in zip(DATA.sequences, found, rows, strict=True):
        outputs = []
        for phase in (0.25, 0.75):  # of each segment of two frames
            images = [video.image(2 * i + int(2 * phase))[1:15, 1:15] for i in range(4)]  # 8/7 of 14 pixels are 16
            clip = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[None]
            small = torch.nn.functional.interpolate(
                Normalisation()(clip)[0], size=(8, 8), mode="bilinear", align_corners=False
            )
            outputs.append(model.network(small[None])[0])
        logits = torch.stack(outputs)
        expected = logits.softmax(1).mean(0) if average == "prob" else logits.mean(0).softmax(0)
        np.testing.assert_allclose(prediction, expected, atol=1e-5)
        assert row == [video.name, list(video.classes), int(expected.argmax())]


@pytest.mark.parametrize("upright", [False, True])
def test_three_crops_span_the_long_side(upright: bool) -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (14, 20, 3), dtype=np.uint8)

    class Still:
        name = "still"

        def __len__(self) -> int:
            return 1

        def image(self, index: int) -> np.ndarray:
            return wide.transpose(1, 0, 2) if upright else wide

    views = views_of(Still(), VIEW, num_crops=3, num_clips=2)
    assert views.shape == (6, 4, 14, 14, 3)
    for number, left in ((0, 0), (1, 3), (2, 6), (3, 0), (4, 3), (5, 6)):
        expected = wide[:, left : left + 14]
        found = views[number, 0]
        assert np.array_equal(found, expected.transpose(1, 0, 2) if upright else expected)


@pytest.mark.parametrize("sampling", ["segments", "dense"])
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_clips_shorter_than_the_window_repeat_their_frames(model, sampling, num_frames: int) -> None:
    short = synthetic_actions(num_videos=2, num_frames=8, size=16, num_classes=K, seed=1).sequences
    short = [ClassifiedVideo(replace(s.frames, num_frames=num_frames), s.classes) for s in short]
    metrics = scored(seeing(model, sampling=sampling), short, task_of(num_clips=3))
    assert metrics["num_scored"] == 2
    assert metrics["undecodable"] == []


def test_metrics_by_counting(model) -> None:
    metrics = scored(model, DATA.sequences, task_of(), teacher=model)
    predicted = [int(p.argmax()) for p in probabilities(model, DATA.sequences, task_of())]
    right = [p == v.classes[0] for p, v in zip(predicted, DATA.sequences, strict=True)]
    assert metrics["top1"] == pytest.approx(sum(right) / 6)
    assert metrics["mean_class_accuracy"] == pytest.approx(np.mean([np.mean(right[c::K]) for c in range(K)]))
    assert metrics["top5"] is None, "of three classes five are all"
    assert metrics["map"] is None
    assert metrics["agreement"] == 1.0
    assert (metrics["num_scored"], metrics["num_frames"]) == (6, 6)
    assert np.sum(metrics["confusion"]) == 6
    assert np.trace(metrics["confusion"]) == sum(right)
    for part in (
        "1 clip of 4 frames",
        "1 square crop of 14 px seen at 8 px",
        "probabilities averaged",
        "6 of 6 videos",
    ):
        assert part in metrics["protocol"]


def test_agreement_is_the_share_of_equal_answers(model) -> None:
    torch.manual_seed(1)
    other = TinyClips(K)
    torch.nn.init.normal_(other.head.weight, std=2)
    teacher = Windowed(other, Card(view=replace(VIEW, size=14))).eval()
    found = scored(model, DATA.sequences, task_of(), teacher)["agreement"]
    answers = [[int(p.argmax()) for p in probabilities(m, DATA.sequences, task_of())] for m in (model, teacher)]
    assert 0 < found < 1
    assert found == pytest.approx(np.mean([a == b for a, b in zip(*answers, strict=True)]))


def test_several_labels_count_as_average_precision(model) -> None:
    videos = [ClassifiedVideo(v.frames, (i % K, (i + 1) % K)) for i, v in enumerate(DATA.sequences)]
    metrics = scored(model, videos, task_of(multi_label=True))
    assert metrics["top1"] is None
    scores = probabilities(model, videos, task_of(multi_label=True))
    precisions = []
    for c in range(K):
        ranked = sorted(range(6), key=lambda i, c=c: -scores[i][c])
        hits = [place for place, i in enumerate(ranked, 1) if c in videos[i].classes]
        precisions.append(np.mean([number / place for number, place in enumerate(hits, 1)]))
    assert metrics["map"] == pytest.approx(np.mean(precisions), rel=1e-5)


def test_unlabelled_videos_have_agreement_alone(model) -> None:
    metrics = scored(model, [video.frames for video in DATA.sequences], task_of(), teacher=model)
    assert metrics["num_scored"] == 0
    assert metrics["num_frames"] == 6
    assert metrics["agreement"] == 1.0
    assert all(metrics[name] is None for name in ("top1", "top5", "mean_class_accuracy", "map", "confusion"))


# What cannot be decoded


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A good folder of frames, one with a broken middle, a video of zeros in its middle, and one that is none."""
    for name in ("good", "broken"):
        for i in range(8):
            write_image(tmp_path / name / f"{i}.png", size=(16, 16), level=20 * i)
    cut_short(write_image(tmp_path / "broken" / "3.png", size=(64, 64)))
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "zeros.mp4", fps=10) as writer:
        for _ in range(16):
            writer.write(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    contents = bytearray((tmp_path / "zeros.mp4").read_bytes())
    contents[len(contents) // 3 : len(contents) * 2 // 3] = bytes(len(contents) * 2 // 3 - len(contents) // 3)
    (tmp_path / "zeros.mp4").write_bytes(contents)
    (tmp_path / "none.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("none.mp4 0\nbroken 8 1\ngood 8 2\nzeros.mp4 1\n")
    return tmp_path


def test_a_broken_middle_is_left_out_and_named(model, place: Path) -> None:
    model = seeing(model, num_frames=8)
    metrics = scored(model, labelled_videos(place, num_classes=K).sequences, task_of(), teacher=model)
    assert metrics["num_scored"] == 1
    assert metrics["num_frames"] == 4
    named = zip(("none.mp4", "3.png", "zeros.mp4"), metrics["undecodable"], strict=True)
    assert all(name in sentence and "\n" not in sentence for name, sentence in named)
    assert "1 of 4 videos decoded" in metrics["protocol"]
    assert metrics["agreement"] == 1.0


def test_nothing_that_can_be_decoded_is_an_error(model, place: Path) -> None:
    (place / "list.txt").write_text("none.mp4 0\n")
    with pytest.raises(UserError, match=r"none of the 1 videos can be scored: .*none\.mp4"):
        scored(model, labelled_videos(place, num_classes=K).sequences, task_of())


def test_what_the_teacher_alone_cannot_decode_is_still_scored(model, place: Path) -> None:
    """The student's view has none of the frames that are broken, the teacher's has them all."""
    few, every = seeing(model, num_frames=2), seeing(model, num_frames=8)
    sequences = [video for video in labelled_videos(place, num_classes=K).sequences if not video.name.endswith("mp4")]
    assert [video.name for video in sequences] == ["broken", "good"]
    found = evaluate({"student": few, "teacher": every}, sequences, task_of())
    assert found["student"] == {**scored(few, sequences, task_of()), "agreement": found["student"]["agreement"]}
    assert (found["student"]["num_scored"], found["teacher"]["num_scored"]) == (2, 1)
    assert found["student"]["agreement"] in (0.0, 1.0), "of the one video that both have seen"


def test_a_class_that_the_network_does_not_know_is_refused_before_anything_runs(model) -> None:
    ran: list[int] = []
    model.network.register_forward_hook(lambda *_: ran.append(1))
    videos = [*DATA.sequences, ClassifiedVideo(replace(DATA.sequences[0].frames, name="odd"), (K,))]
    with pytest.raises(UserError, match="odd: has the class 3, the network knows 3 classes, from 0"):
        scored(model, videos, task_of())
    assert not ran
