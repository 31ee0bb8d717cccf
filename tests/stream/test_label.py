"""A teacher's labels are read back as data sets, in a form that trains."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.networks import TinyDetector, TinySegmenter
from tests.test_cli import run
from vidistill.data.clip import SampleKey
from vidistill.data.datasets.coco_video import coco_video
from vidistill.data.datasets.label_maps import label_maps
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.resized import resize_image
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.models import onnx_networks
from vidistill.models.libraries import import_torchvision, torchvision_with_weights
from vidistill.models.onnx_networks import FastestDetector, OnnxSegmenter, YoloxDetector, onnx_network
from vidistill.stream.label import label_videos, open_teacher
from vidistill.stream.stream import Running
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.students.student import PerFrame
from vidistill.tasks import task_of
from vidistill.tasks.detection import Detection
from vidistill.tasks.detection.samples import BoxedClips, BoxedClipSettings

NAMES = ("ground", "rectangle", "disc")


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(synthetic(num_sequences=1, num_frames=4, size=(48, 64), num_classes=3).sequences[0].images())


@pytest.fixture
def video(tmp_path: Path, images) -> str:
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for image in images:
            writer.write(image)
    return str(tmp_path / "clip.mp4")


@pytest.fixture
def folder(tmp_path: Path, images) -> str:
    (tmp_path / "walk").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "walk" / f"{index}.png")
    return str(tmp_path / "walk")


def teacher_of(network: torch.nn.Module, task: str) -> PerFrame:
    card = Card(task=task_of({"name": task, "num_classes": 3}), class_names=NAMES)
    return PerFrame(network, card).eval()


def test_boxes_of_videos_and_of_folders_of_frames(tmp_path: Path, video: str, folder: str, images) -> None:
    network = TinyDetector(3)
    torch.nn.init.normal_(network.logits.weight)  # sure of something
    teacher = teacher_of(network, "detection")
    path = label_videos([video, folder], teacher, tmp_path / "labels", score=0.6, classes=["disc", "rectangle"])
    dataset = coco_video(path.parent)
    assert dataset.class_names == ("disc", "rectangle")
    assert [len(sequence) for sequence in dataset.sequences] == [4, 4]
    walk = dataset.sequences[1]
    task = Detection(num_classes=3, score_threshold=0.6)
    for index, image in enumerate(images):
        frame = teacher.card.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None])
        with torch.no_grad():
            rows = task.decode(teacher(frame)[0], size=(48, 64))[0].numpy()
        rows = rows[np.isin(rows[:, 4], [1, 2])]
        np.testing.assert_allclose(walk.boxes(index).xyxy, rows[:, :4], atol=1e-3)
        np.testing.assert_allclose(walk.boxes(index).rows()[:, 5], rows[:, 5], atol=1e-5)
        assert [2 - label for label in walk.boxes(index).labels.tolist()] == rows[:, 4].tolist()
        assert (walk.image(index) == image).all()
    assert sum(len(walk.boxes(index)) for index in range(4)) > 0
    drawn = BoxedClips([dataset], BoxedClipSettings(min_score=0.7))
    _, clip = drawn[SampleKey(0, 0, 0)]
    assert all((rows[:, 5] >= 0.7).all() for rows in clip.rows)


def test_videos_of_one_name_are_told_apart(tmp_path: Path, images) -> None:
    videos = [tmp_path / "a" / "clip.mp4", tmp_path / "b" / "clip.mp4"]
    for video in videos:
        video.parent.mkdir()
        with VideoWriter(video, fps=10) as writer:
            writer.write(images[0])
    path = label_videos([str(video) for video in videos], teacher_of(TinyDetector(3), "detection"), tmp_path / "x.json")
    contents = json.loads(path.read_text())
    assert [video["name"] for video in contents["videos"]] == ["clip.mp4", "clip_2.mp4"]
    assert [image["file_name"] for image in contents["images"]] == ["clip.mp4/000000.png", "clip_2.mp4/000000.png"]
    assert [video["file_name"] for video in contents["videos"]] == ["a/clip.mp4", "b/clip.mp4"]


def test_label_maps_of_a_segmenter(tmp_path: Path, folder: str, images) -> None:
    teacher = teacher_of(TinySegmenter(3), "segmentation")
    out = label_videos([folder], teacher, tmp_path / "maps", score=0.5, classes=["rectangle", "disc"])
    dataset = label_maps(out)
    assert dataset.class_names == ("rectangle", "disc")
    [sequence] = dataset.sequences
    assert sequence.problems() == []
    frame = teacher.card.normalisation(torch.from_numpy(images[2]).permute(2, 0, 1)[None])
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(teacher(frame)[0], size=(48, 64), mode="bilinear")
    sure, classes = logits.softmax(dim=1)[0].max(dim=0)
    expected = torch.where((sure >= 0.5) & (classes > 0), classes - 1, 255)
    assert (sequence.labels(2) == expected.numpy()).mean() > 0.999
    assert (sequence.image(2) == images[2]).all()
    assert label_maps(out, height=24).sequences[0].image(0).shape == (24, 32, 3)
    with pytest.raises(UserError, match="already exists"):
        label_videos([folder], teacher, out)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_teacher_may_see_smaller_frames(tmp_path: Path, folder: str, images, task: str) -> None:
    network = TinyDetector(3) if task == "detection" else TinySegmenter(3)
    teacher = teacher_of(network, task)
    out = label_videos([folder], teacher, tmp_path / "labels", score=0.4, height=24)
    small = torch.from_numpy(resize_image(images[1], 24)).permute(2, 0, 1)[None]
    with torch.no_grad():
        outputs, _ = teacher(teacher.card.normalisation(small))
    if task == "detection":
        expected = Detection(num_classes=3, score_threshold=0.4).decode(outputs, size=(24, 32))[0]
        found = coco_video(out.parent).sequences[0].boxes(1)
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.xyxy, 2 * expected[:, :4].numpy(), atol=1e-3)
    else:
        logits = torch.nn.functional.interpolate(outputs, size=(48, 64), mode="bilinear")
        sure, classes = logits.softmax(dim=1)[0].max(dim=0)
        labels = label_maps(out).sequences[0].labels(1)
        assert (labels == torch.where(sure >= 0.4, classes, 255).numpy()).mean() > 0.999


def test_earlier_labels_are_kept(tmp_path: Path, folder: str) -> None:
    teacher = teacher_of(TinyDetector(3), "detection")
    (tmp_path / "annotations.json").write_text("earlier")
    with pytest.raises(UserError, match=r"annotations\.json: already exists"):
        label_videos([folder], teacher, tmp_path)
    assert (tmp_path / "annotations.json").read_text() == "earlier"


def test_what_breaks_off_leaves_nothing(tmp_path: Path, folder: str) -> None:
    (tmp_path / "walk" / "3.png").write_bytes(b"no image")
    before = sorted(path.name for path in tmp_path.iterdir())
    for task, network in (("segmentation", TinySegmenter(3)), ("detection", TinyDetector(3))):
        with pytest.raises(UserError, match=r"3\.png"):
            label_videos([folder], teacher_of(network, task), tmp_path / f"out_{task}")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_teachers_that_cannot_label(tmp_path: Path, folder: str) -> None:
    teacher = teacher_of(TinyDetector(3), "detection")
    with pytest.raises(UserError, match="--classes: the teacher does not know 'dics'; did you mean disc"):
        label_videos([folder], teacher, tmp_path / "out", classes=["dics"])
    for task in ("detection", "segmentation"):
        teacher.card = Card(task=task_of({"name": task}))
        with pytest.raises(UserError, match=f"{task}: num_classes is unknown; give it in the card"):
            label_videos([folder], teacher, tmp_path / "out")
        with pytest.raises(UserError, match=f"{task}: num_classes is unknown; give it in the card"):
            teacher.task.scores(interval=1, view=None)
    teacher.card = Card(task=task_of({"name": "recognition", "num_classes": 3}))
    with pytest.raises(UserError, match="a teacher of the task recognition cannot label frames; give a teacher of ano"):
        label_videos([folder], teacher, tmp_path / "out")


def test_the_verb(tmp_path: Path, video: str, capsys) -> None:
    teacher = teacher_of(TinyDetector(3), "detection")
    save_student(tmp_path / "student.safetensors", teacher)
    assert run("label", video, "--teacher", str(tmp_path), "--out", str(tmp_path / "x.json")) == 1
    assert "network of your own" in capsys.readouterr().err
    assert run("label", video, "--teacher", "torchvision:fcos_resnet50_fpn", "--out", str(tmp_path / "x.json")) == 1
    assert "--weights" in capsys.readouterr().err
    assert run("label", video, "--teacher", str(tmp_path / "a.onnx"), "--out", str(tmp_path / "x.json")) == 1
    assert "file not found" in capsys.readouterr().err


ONNX_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}


def session(said: np.ndarray, given: list[np.ndarray], *, size: tuple[int, int] = (64, 64), others=()):
    """A graph that always says the same."""

    def answer(names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        given.append(inputs["images"])
        return [said]

    return SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="images", shape=[1, 3, *size])],
        get_outputs=lambda: [
            SimpleNamespace(name="output", shape=list(one.shape), type=ONNX_TYPES[one.dtype.name])
            for one in (said, *others)
        ],
        run=answer,
    )


def test_yolox_decoded_by_hand() -> None:
    said = np.zeros((1, 64 + 16 + 4, 5 + 2), dtype=np.float32)
    said[0, 8 * 3 + 2] = [0.5, 0.25, math.log(2), 0, 0.9, 0.1, 0.8]  # stride 8, third column, fourth row
    said[0, 64 + 4 * 1 + 3] = [1, 0, 0, math.log(0.5), 0.5, 0.6, 0]  # stride 16
    given: list[np.ndarray] = []
    network = YoloxDetector(session(said, given))
    frame = torch.zeros(1, 3, 96, 128)
    frame[:, 0] = 200  # red
    found = Detection(num_classes=2, score_threshold=0.2).decode(network(frame), size=(96, 128))[0]
    # in the square (2.5, 3.25) · 8 = (20, 26) of 16 × 8, and (4, 1) · 16 = (64, 16) of 16 × 8; the frame is twice that
    expected = [[24.0, 44, 56, 60, 1, 0.72], [112, 24, 128, 40, 0, 0.3]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    [square] = given
    assert square.shape == (1, 3, 64, 64)
    assert (square[0, 2, :48] == 200).all(), "blue, green, red"
    assert (square[0, :2, :48] == 0).all()
    assert (square[0, :, 48:] == 114).all()


def test_yolox_decoded_inside_is_not_decoded_twice() -> None:
    said = np.zeros((1, 64 + 16 + 4, 5 + 2), dtype=np.float32)
    said[0, 8 * 3 + 2] = [20, 26, 16, 8, 0.9, 0.1, 0.8]  # centre, width and height in pixels of the square
    said[..., 2:4] += 1e-3
    network = YoloxDetector(session(said, []), decoded=True)
    found = Detection(num_classes=2, score_threshold=0.2).decode(network(torch.zeros(1, 3, 96, 128)), size=(96, 128))
    np.testing.assert_allclose(found[0].numpy(), [[24, 44, 56, 60, 1, 0.72]], atol=1e-2)


def test_fastest_det_decoded_by_hand() -> None:
    said = np.full((1, 5 + 2, 2, 3), -9, dtype=np.float32)
    said[0, 0], said[0, 5:] = 0, 0.5
    logit_of_half, atanh_of_half = 0.0, math.log(3) / 2
    said[0, :, 1, 2] = [0.9, atanh_of_half, -atanh_of_half, logit_of_half, math.log(0.25 / 0.75), 0.8, 0.2]
    given: list[np.ndarray] = []
    network = FastestDetector(session(said, given, size=(32, 48)))
    frame = torch.zeros(1, 3, 64, 192)
    frame[:, 0] = 255  # red
    found = Detection(num_classes=2, score_threshold=0.5).decode(network(frame), size=(64, 192))[0]
    # centre (2.5, 0.5) of 3 × 2 cells, in the frame (160, 16); half of its width, a quarter of its height
    expected = [160 - 48, 16 - 8, 160 + 32, 16 + 8, 0, 0.9**0.6 * 0.8**0.4]
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-4)
    [seen] = given
    assert seen.shape == (1, 3, 32, 48)
    np.testing.assert_allclose(seen[0, :, 5, 5], [0, 0, 1], atol=1e-6)  # blue, green, red


def yolox_rows(*, decoded: bool) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(1, 84, 7)).astype(np.float32)
    if decoded:
        rows[0, :, :2] = np.linspace(1, 63, 84)[:, None]
        rows[..., 2:4] = np.exp(rows[..., 2:4])
    return rows


def maps(*shape: int, softmax_from: int | None = None) -> np.ndarray:
    values = np.random.default_rng(0).uniform(size=(1, *shape)).astype(np.float32)
    if softmax_from is not None:
        values[:, softmax_from:] /= values[:, softmax_from:].sum(axis=1, keepdims=True)
    return values


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ([yolox_rows(decoded=False)], YoloxDetector),
        ([yolox_rows(decoded=True)], YoloxDetector),
        ([maps(85, 4, 4, softmax_from=5)], FastestDetector),
        ([maps(85, 4, 4)], OnnxSegmenter),
        ([maps(21, 4, 4, softmax_from=0)], OnnxSegmenter),
        ([maps(21, 8, 8), maps(21, 8, 8)], OnnxSegmenter),
        ([maps(2, 8, 8)], OnnxSegmenter),
        ([maps(1, 64, 64)], OnnxSegmenter),  # how probable a foreground is
        ([maps(1, 64, 64)] * 7, OnnxSegmenter),  # U²-Net's, from seven depths
        ([2 * maps(1, 64, 64)], None),  # logits, or metres
        ([maps(21, 8, 8).astype(np.int64)], None),  # ids, not logits
        ([maps(21, 1, 1)], None),  # of the whole frame
        ([maps(21, 8, 4)], None),
        ([maps(255, 8, 8), maps(255, 4, 4), maps(255, 2, 2)], None),  # YOLOv5's heads
        ([maps(80, 16, 16), maps(2, 16, 16), maps(2, 16, 16)], None),  # CenterNet's
        ([maps(100, 6)], None),
    ],
)
def test_what_a_graph_is(monkeypatch: pytest.MonkeyPatch, said: list[np.ndarray], kind: type | None) -> None:
    monkeypatch.setattr(onnx_networks, "open_session", lambda path, threads: session(said[0], [], others=said[1:]))
    if kind is None:
        with pytest.raises(UserError, match="expected YOLOX"):
            onnx_network("x.onnx")
        return
    network = onnx_network("x.onnx")
    assert type(network) is kind
    assert getattr(network, "decoded", False) == bool(said[0].ndim == 3 and said[0][0, -1, 0] > 60)


def test_a_foregrounds_probability_becomes_masks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str) -> None:
    said = maps(1, 48, 64)
    monkeypatch.setattr(onnx_networks, "open_session", lambda path, threads: session(said, [], size=(48, 64)))
    teacher = open_teacher("x.onnx")
    assert teacher.task == task_of({"name": "segmentation", "num_classes": 1})
    dataset = label_maps(label_videos([folder], teacher, tmp_path / "labels", score=0.8))
    assert dataset.class_names == ("background", "foreground")
    expected = np.where(np.maximum(said, 1 - said) >= 0.8, said > 0.5, 255)[0, 0]
    assert (dataset.sequences[0].labels(1) == expected).all()


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="not a network in ONNX"):
        onnx_network(tmp_path / "a.onnx")


def test_a_network_in_an_onnx_file_labels(tmp_path: Path, folder: str, images, capsys) -> None:
    """ONNX Runtime's sessions cannot be copied, and a stream runs a copy."""
    torch.onnx.export(
        torch.nn.Conv2d(3, 5, 3, stride=2, padding=1).eval(), (torch.zeros(1, 3, 48, 64),), str(tmp_path / "a.onnx"),
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    teacher = open_teacher(str(tmp_path / "a.onnx"), threads=1)
    assert teacher.task == task_of({"name": "segmentation", "num_classes": 5})
    [sequence] = label_maps(label_videos([folder], teacher, tmp_path / "labels", score=0.0)).sequences
    frame = teacher.normalisation(torch.from_numpy(images[3]).permute(2, 0, 1)[None])
    logits = torch.nn.functional.interpolate(teacher.network(frame), size=(48, 64), mode="bilinear")
    assert np.mean(sequence.labels(3) == logits.argmax(dim=1)[0].numpy()) > 0.999
    with pytest.raises(UserError, match=r"the network cannot be exported to ONNX: .*; run it with runtime eager"):
        label_videos([folder], teacher, tmp_path / "more", running=Running(runtime="onnx"))


def test_torchvision_with_its_own_weights(tmp_path: Path) -> None:
    library = import_torchvision().models.get_model(
        "ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=91
    )
    torch.save(library.state_dict(), tmp_path / "weights.pth")
    teacher = open_teacher("torchvision:ssdlite320_mobilenet_v3_large", tmp_path / "weights.pth")
    assert teacher.card.task == Detection(num_classes=90)
    assert teacher.card.class_names[0] == "person"
    assert teacher.card.normalisation.std == (0.5, 0.5, 0.5)
    first = next(iter(library.backbone.parameters()))
    assert torch.equal(next(iter(teacher.network.backbone.parameters())), first)
    with pytest.raises(UserError, match="does not fit the network: it lacks '"):
        open_teacher("torchvision:fcos_resnet50_fpn", tmp_path / "weights.pth")
    with pytest.raises(UserError, match="neither a detector nor a segmenter"):
        open_teacher("torchvision:resnet18", tmp_path / "weights.pth")


@torch.no_grad()
def test_norms_of_torchvisions_first_weights_have_no_eps(tmp_path: Path) -> None:
    torchvision = import_torchvision()
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    library = torchvision.models.get_model(
        "fasterrcnn_resnet50_fpn", weights=None, weights_backbone=None, num_classes=91
    )
    weights = library.state_dict()
    for name in weights:
        if name.endswith("running_var"):
            weights[name].fill_(1e-4)  # where an eps of 1e-5 is seen
    torch.save(weights, tmp_path / "weights.pth")
    network, _ = torchvision_with_weights("fasterrcnn_resnet50_fpn", tmp_path / "weights.pth")
    expected = resnet_fpn_backbone(backbone_name="resnet50", weights=None)  # of frozen norms, as with its weights
    overwrite_eps(expected, 0.0)
    counted = {n: t for n, t in network.backbone.state_dict().items() if not n.endswith("num_batches_tracked")}
    expected.load_state_dict(counted)
    for module in (network, expected):
        module.eval()
    stem, frozen = network.backbone.body, expected.body
    frames = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(stem.bn1(stem.conv1(frames)), frozen.bn1(frozen.conv1(frames)), rtol=1e-5, atol=1e-3)


def test_label_maps_need_their_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class names"):
        label_maps(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(["a"]))
    with pytest.raises(UserError, match="no folders with"):
        label_maps(tmp_path)
