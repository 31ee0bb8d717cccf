"""The same promises on real video. VIDISTILL_DATA names the folder; see CONTRIBUTING.md."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vidistill.data.clip import SampleKey
from vidistill.data.datasets.camvid import camvid
from vidistill.data.datasets.davis import davis
from vidistill.data.datasets.labelled_videos import labelled_videos
from vidistill.data.datasets.videos import videos
from vidistill.data.video.reader import VideoReader
from vidistill.methods.delta import Delta
from vidistill.runs.demo import demo_teacher
from vidistill.stream.evaluate import evaluate
from vidistill.students.card import Card
from vidistill.students.files import load_student
from vidistill.students.student import PerFrame
from vidistill.tasks.recognition.samples import ClassifiedClips, ClassifiedClipSettings
from vidistill.tasks.segmentation import Segmentation

pytestmark = pytest.mark.real_data
DATA = Path(os.environ.get("VIDISTILL_DATA", "data"))
TASK = Segmentation(num_classes=11)


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


def test_camvid_is_stills_and_one_consecutive_sequence() -> None:
    train, val = camvid(DATA / "camvid", split="train"), camvid(DATA / "camvid", split="val")
    assert [len(sequence) for sequence in train.sequences] == [1] * 367
    assert [len(sequence) for sequence in val.sequences] == [50]
    assert val.problems() == []


def test_davis_has_a_mask_for_every_frame() -> None:
    dataset = davis(DATA / "davis")
    assert len(dataset.sequences) == 14
    assert all(len(sequence.labelled()) == len(sequence) for sequence in dataset.sequences)
    assert set(np.unique(dataset.sequences[0].labels(0))) <= {0, 1}


def test_every_clip_is_whole() -> None:
    assert videos(DATA / "unlabelled").problems() == []


def test_random_access_is_sequential_access() -> None:
    path = DATA / "unlabelled" / "carnd_solidWhiteRight.mp4"
    with VideoReader(path) as reader:
        wanted = {0: None, 37: None, 150: None, 220: None}
        for frame in reader:
            if frame.index in wanted:
                wanted[frame.index] = frame.image
        assert reader.num_frames == 221
        for index in (220, 37, 150, 0):
            assert np.array_equal(reader[index].image, wanted[index])


def test_the_packaged_teacher_scores_what_its_recipe_says() -> None:
    teacher = load_student(demo_teacher())
    found = evaluate({"teacher": teacher}, camvid(DATA / "camvid", split="val").sequences, TASK)["teacher"]
    assert found["num_scored"] == 50
    assert found["miou"] >= 0.60


def test_delta_students_on_camvid_before_any_training() -> None:
    """The SVD start alone, key frame every 3, keeps most of the teacher; holding its output keeps less."""
    teacher = load_student(demo_teacher())
    method = Delta(key_frame_interval=3)
    card = Card(task=TASK, key_frame_interval=3)
    student = method.finish(method.prepare(teacher.network, torch.zeros(1, 3, 360, 480), card=card))
    sequences = camvid(DATA / "camvid", split="val").sequences
    networks = {"student": student, "teacher": PerFrame(teacher.network)}
    ours = evaluate(networks, sequences, TASK)["student"]
    assert ours["miou_by_distance"][0] >= 0.60
    assert ours["agreement_by_distance"][0] > 0.9999, "key frames are the teacher's"
    assert ours["miou"] > 0.9 * ours["miou_by_distance"][0]


def test_ut_interaction_in_four_folds_by_sequence() -> None:
    root, options = DATA / "ut_interaction", {"list_file": "labels.csv", "group": "sequence", "folds": 4}
    seen: list[str] = []
    for fold in range(4):
        test = labelled_videos(root, fold=fold, split="test", **options)
        train = labelled_videos(root, fold=fold, split="train", **options)
        assert len(test.sequences) + len(train.sequences) == 96
        seen += [video.name for video in test.sequences]
        assert test.num_classes == 6
    assert len(set(seen)) == len(seen) == 96, "every clip is scored once"
    clips = ClassifiedClips([train], ClassifiedClipSettings(num_frames=4, crop=112))
    _, frames, labels = clips[SampleKey(0, 0, 0)]
    assert frames.shape == (4, 112, 112, 3)
    assert labels.sum() == 1


def test_fight_in_four_folds_by_source() -> None:
    root, options = DATA / "fight", {"list_file": "labels.csv", "group": "source_group", "folds": 4}
    seen: list[str] = []
    for fold, num_tested in enumerate((52, 52, 37, 44)):
        test = labelled_videos(root, fold=fold, split="test", **options).sequences
        train = labelled_videos(root, fold=fold, split="train", **options).sequences
        assert (len(test), len(train)) == (num_tested, 213 - num_tested)
        sources = [{video.columns["source_group"] for video in videos} for videos in (test, train)]
        assert not sources[0] & sources[1], "no source is on both sides"
        assert "" in sources[1], "clips without a known source are for training only"
        assert {video.classes for video in test} == {(0,), (1,)}
        seen += [video.name for video in test]
    assert len(set(seen)) == len(seen) == 213 - 28
