"""The layouts of box annotations, on small trees, and the way from one to another."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.coco_video import coco_video, write_coco_video
from vidistill.data.datasets.imagenet_video import CLASSES, imagenet_det, imagenet_vid
from vidistill.data.datasets.mot import mot, write_mot
from vidistill.data.datasets.pets import pets
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.image_files import images_in
from vidistill.data.sequences.boxes import BoxedSequence, Boxes
from vidistill.data.sequences.frame_files import unique_name
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError


def write_images(folder: Path, *names: str, size: tuple[int, int] = (12, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for level, name in enumerate(names):
        PillowImage.fromarray(np.full((*size, 3), 10 * level, dtype=np.uint8)).save(folder / name)


def coco_contents() -> dict:
    """Two frames of one video; the second shows nothing."""
    image = {"video_id": 5, "height": 12, "width": 16}
    return {
        "videos": [{"id": 5, "name": "street"}, {"id": 6, "name": "empty"}],
        "images": [
            {"id": 11, "frame_id": 1, "file_name": "street/b.png"} | image,
            {"id": 10, "frame_id": 0, "file_name": "street/a.png"} | image,
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4.5], "instance_id": 3, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 2, "bbox": [10, 8, 10, 2], "instance_id": 4, "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "car"}, {"id": 2, "name": "dog"}],
    }


def scored(contents: dict, *scores: float) -> None:
    for annotation, score in zip(contents["annotations"], scores, strict=True):
        annotation["score"] = score


def write_coco(root: Path, contents: dict) -> Path:
    write_images(root / "street", "a.png", "b.png")
    (root / "annotations.json").write_text(json.dumps(contents))
    return root


def test_coco_video_worked_by_hand(tmp_path: Path) -> None:
    dataset = coco_video(write_coco(tmp_path, coco_contents()))
    assert dataset.class_names == ("dog", "car")
    [sequence] = dataset.sequences
    assert (sequence.name, len(sequence)) == ("street", 2)
    boxes = sequence.boxes(0)
    assert boxes.xyxy.tolist() == [[1, 2, 4, 6.5], [10, 8, 16, 10]]  # the second is clipped at 16
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.instances.tolist() == [3, 4]
    assert boxes.crowd.tolist() == [False, True]
    assert len(sequence.boxes(1)) == 0
    assert (sequence.image(1) == 10).all()
    assert dataset.problems() == []
    assert sequence.notes() == ["street: 1 boxes reach beyond their frame and are clipped to it"]
    part = coco_video(tmp_path, frames=(1, 2), height=6).sequences[0]
    assert (len(part), part.image(0).shape) == (1, (6, 8, 3))


def test_coco_images_that_are_not_there_are_problems(tmp_path: Path) -> None:
    dataset = coco_video(write_coco(tmp_path, coco_contents()))
    (tmp_path / "street" / "b.png").unlink()
    assert any("b.png" in problem for problem in dataset.problems())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda c: [i.update(frame_id=i["frame_id"] + 1) for i in c["images"]],
            "frame_ids must count from 0, the first is 1; subtract 1",
        ),
        (
            lambda c: [i.update(frame_id=i["frame_id"] - 1) for i in c["images"]],
            "frame_ids must count from 0, the first is -1",
        ),
        (lambda c: c["images"][0].update(frame_id=0), "frame_id 0 twice"),
        (lambda c: c["images"][0].update(frame_id=2), "has no frame_id 1"),
        (lambda c: c["annotations"][0].update(image_id=99), "no image 99"),
        (lambda c: c["annotations"][0].update(category_id=3), "category_id must be among \\[2, 7\\], got 3"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "image 10 .*finite"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), "must have a width and a height above 0"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "four numbers"),
        (lambda c: c["images"][0].pop("file_name"), "no file_name"),
        (lambda c: c["images"][1].pop("width"), "width must be a whole number, got None"),
        (lambda c: c["images"][1].update(height=0), "image 10 .* height and width must be at least 1, got 0 and 16"),
        (lambda c: c["images"][0].update(video_id=9), "image 11: there is no video 9 in the file"),
        (lambda c: c["images"][0].update(video_id=None), "image 11: video_id must be a whole number or text, got None"),
        (lambda c: c["images"][0].update(frame_id=0.5), "frame_id must be a whole number, got 0.5"),
        (lambda c: c["images"][0].update(file_name=["a"]), r"expected the name of a file, got \['a'\]"),
        (lambda c: c["images"][0].update(file_name="a\0.png"), "no file can have the name"),
        (lambda c: c["images"][0].update(file_name="\ud800.png"), "no file can have the name"),
        (lambda c: c["images"][0].update(file_name="a" * 300), "no file can have the name"),
        (lambda c: c["annotations"][0].update(instance_id=[1]), r"instance_id must be a whole number or text, got \[1"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 10**400, 4]), "incomplete"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 1e39, 4]), "finite"),
        (lambda c: c["annotations"][0].update(bbox=None), "incomplete"),
        (lambda c: c["images"][0].update(id=10), "images: the id 10 comes twice"),
        (lambda c: c["categories"][0].update(id=2), "categories: the id 2 comes twice"),
        (lambda c: c["videos"][0].update(id=6), "videos: the id 6 comes twice"),
        (lambda c: c["categories"].append("person"), "categories: entry 2 must be an object with an id, got 'person'"),
        (lambda c: c["annotations"].append([1, 2]), r"annotations: entry 2 must be an object with an id, got \[1, 2\]"),
        (lambda c: c["annotations"][1].update(score=0.5), "annotation 1: has no score, although others have"),
        (
            lambda c: scored(c, 0.5, 1.5),
            r"image 10 .*box 1 .*10, 8, 20, 10\) must have a score between 0 and 1, got 1\.5",
        ),
        (lambda c: scored(c, -0.1, 1), "box 0 .* must have a score between 0 and 1, got -0\\.1"),
        (lambda c: scored(c, 0, float("nan")), "box 1 .* must have a score between 0 and 1, got nan"),
        (lambda c: c["annotations"][0].update(iscrowd="yes"), "image 10 .*incomplete"),
        (lambda c: c.pop("videos"), "no list 'videos'"),
        (lambda c: c["images"].clear() or c["annotations"].clear(), "no frames to take"),
    ],
)
def test_bad_coco_files(tmp_path: Path, change, fault: str) -> None:
    contents = coco_contents()
    change(contents)
    with pytest.raises(UserError, match=fault):
        coco_video(write_coco(tmp_path, contents))


def test_crowds_and_scores_of_coco_as_text(tmp_path: Path) -> None:
    contents = coco_contents()
    for annotation, crowd, score in zip(contents["annotations"], ("0", "1"), (0.25, 0.5), strict=True):
        annotation.update(iscrowd=crowd, score=score)
    boxes = coco_video(write_coco(tmp_path, contents)).sequences[0].boxes(0)
    assert boxes.crowd.tolist() == [False, True]
    assert boxes.scores.tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["annotations"][0].update(image_id=10.0, iscrowd=None, area=None),
        lambda c: c["annotations"][0].update(image_id="10", category_id="7", iscrowd=False, id=2),
        lambda c: c["annotations"][0].update(bbox=["1", "2", "3", "4.5"], iscrowd=0.0, score=None),
        lambda c: c["annotations"][0].update(segmentation={"counts": "a", "size": [1, 1]}, keypoints=[1, 2, 2]),
        lambda c: [i.update(width="16", height=12.0, frame_id=f"{i['frame_id']}.0") for i in c["images"]],
        lambda c: c["images"].append(dict(c["images"][0])),
        lambda c: [i.update(file_name=i["file_name"].replace("/", "\\")) for i in c["images"]],
        lambda c: [i.update(video_id="v-5") for i in c["images"]] and c["videos"][0].update(id="v-5"),
        lambda c: c["categories"].append(c["categories"][0] | {}),
    ],
)
def test_coco_of_other_programs(tmp_path: Path, edit) -> None:
    contents = coco_contents()
    edit(contents)
    dataset = coco_video(write_coco(tmp_path, contents))
    [sequence] = dataset.sequences
    assert dataset.class_names == ("dog", "car")
    boxes = sequence.boxes(0)
    assert boxes.xyxy.tolist() == [[1, 2, 4, 6.5], [10, 8, 16, 10]]
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.crowd.tolist() == [False, True]
    assert boxes.scores is None
    assert (sequence.image(1) == 10).all()
    assert dataset.problems() == []


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (({"instance_id": 3.0}, {"instance_id": "4"}), [3, 4]),
        (({"instance_id": None}, {}), [-1, 4]),
        (({"instance_id": None, "track_id": 8}, {"instance_id": None, "attributes": {"track_id": 9}}), [8, 9]),
        (({"instance_id": 2**63}, {"instance_id": 2**63}), [0, 0]),  # as some hashes are
        (({"instance_id": "a3"}, {"instance_id": 5}), [0, 1]),
    ],
)
def test_what_identifies_a_thing_in_coco(tmp_path: Path, edits: tuple[dict, dict], expected: list[int]) -> None:
    contents = coco_contents()
    for annotation, edit in zip(contents["annotations"], edits, strict=True):
        annotation.update(edit)
    assert coco_video(write_coco(tmp_path, contents)).sequences[0].boxes(0).instances.tolist() == expected


def test_classes_follow_the_order_of_ids_as_numbers_then_as_text(tmp_path: Path) -> None:
    contents = coco_contents()
    contents["annotations"] = []
    ids = ("b", 10, "2", "a", 7.0)
    contents["categories"] = [{"id": key, "name": f"named {key}"} for key in ids] + [{"id": 99}]
    names = ("named 2", "named 7.0", "named 10", "99", "named a", "named b")
    assert coco_video(write_coco(tmp_path, contents)).class_names == names


def test_boxes_outside_of_their_frame_are_problems(tmp_path: Path) -> None:
    contents = coco_contents()
    contents["annotations"][0].update(bbox=[1, 12, 3, 4])
    [sequence] = coco_video(write_coco(tmp_path, contents)).sequences
    assert len(sequence.boxes(0)) == 1
    assert sequence.problems() == ["street: 1 boxes lie outside their frame and are left out; correct or remove them"]


def test_annotations_of_another_size_than_the_image(tmp_path: Path) -> None:
    contents = coco_contents()
    for image in contents["images"]:
        image.update(width=20)
    for height in (None, 6):
        [sequence] = coco_video(write_coco(tmp_path, contents), height=height).sequences
        fault = "street, frame 1: is 16x12, expected 20x12 as its annotation says"
        with pytest.raises(UserError, match=fault):
            sequence.image(1)
        with pytest.raises(UserError, match="frame 0"):
            next(iter(sequence.images()))
        assert [problem.split(";")[0] for problem in sequence.problems()] == [fault.replace("1:", "0:"), fault]


def test_no_coco_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as JSON"):
        coco_video(tmp_path)


def write_mot_sequence(root: Path, text: str, *, info: bool = True) -> Path:
    write_images(root / "img1", "000001.png", "000002.png")
    (root / "gt").mkdir()
    (root / "gt" / "gt.txt").write_text(text)
    if info:
        (root / "seqinfo.ini").write_text("[Sequence]\nname=a\nimDir=img1\nseqLength=2\nimWidth=16\nimHeight=12\n")
    return root


@pytest.mark.parametrize("info", [True, False])
def test_mot_worked_by_hand(tmp_path: Path, info: bool) -> None:
    write_mot_sequence(
        tmp_path / "a", "1,7,2,3,4,5,1,1,0.9\n1,8,1,1,3,3,0,1,1\n1,9,1,1,2,2,1,3,1\n2,7,15,3,4,5\n", info=info
    )
    dataset = mot(tmp_path)
    [sequence] = dataset.sequences
    boxes = sequence.boxes(0)
    assert boxes.xyxy.tolist() == [[1, 2, 5, 7], [0, 0, 3, 3]]  # the car is not wanted
    assert boxes.instances.tolist() == [7, 8]
    assert boxes.crowd.tolist() == [False, True]
    assert sequence.boxes(1).xyxy.tolist() == [[14, 2, 16, 7]]
    assert sequence.boxes(1).num_clipped == 1
    cars = mot(tmp_path, class_names=("car", "pedestrian")).sequences[0]
    assert cars.boxes(0).labels.tolist() == [1, 1, 0]
    assert len(mot(tmp_path / "a", frames=(1, 2)).sequences[0]) == 1


@pytest.mark.parametrize(
    ("rows", "classes"),
    [
        ("1,7,2,3,4,5,1,-1.407,9.0212,0.68774\n1,8,2,3,4,5,1,3,9,0\n", [0, 0]),  # MOT15, once 3 m and no car
        ("1,7,2,3,4,5,1,-1,-1,-1\n", [0]),  # MOT15 without world coordinates
        ("1,7,2,3,4,5,0.9,3,-1,-1\n1,8,2,3,4,5,0.9,1,-1,-1\n", [1, 0]),  # as `vidistill stream --out x.txt` writes
        ("1.0,7.0,2.0,3.0,4.0,5.0,1.0,3.0,0.86\n", [1]),  # MOT16 by pandas
        ("1.00e+00 7.00e+00 2.00e+00 3.00e+00 4.00e+00 5.00e+00 1.00e+00 3.00e+00 1.00e+00\n", [1]),  # by numpy
        ("# frame, id, …\r\n\r\n 1;7;2;3;4;5;1;3;1;\r\n", [1]),
    ],
)
def test_mot_rows_of_every_year_and_program(tmp_path: Path, rows: str, classes: list[int]) -> None:
    write_mot_sequence(tmp_path, rows)
    boxes = mot(tmp_path, class_names=("pedestrian", "car")).sequences[0].boxes(0)
    assert boxes.labels.tolist() == classes
    assert boxes.xyxy.tolist() == [[1, 2, 5, 7]] * len(classes)
    assert boxes.instances[0] == 7


@pytest.mark.parametrize(("inside", "root"), [("a", "."), ("a/gt", ".."), (".", "a")])
def test_mot_from_inside_of_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, root: str) -> None:
    write_mot_sequence(tmp_path / "a", "1,7,2,3,4,5")
    monkeypatch.chdir(tmp_path / inside)
    dataset = mot(root)
    assert (dataset.name, [sequence.name for sequence in dataset.sequences]) == ("a", ["a"])
    assert dataset.sequences[0].image(1).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("0,7,2,3,4,5,1,1,1", "gt.txt:1: frame must be from 1 to 2, got 0"),
        ("3,7,2,3,4,5,1,1,1", "frame must be from 1 to 2, got 3"),
        ("1,7,2,3,4,5,1,14,1", "class must be from 1 to 13, got 14"),
        ("1,7,2,3,nan,5,1,1,1", "frame 1: box 0 .*finite"),
        ("1,7,2,3,-4,5,1,1,1", "must have a width and a height above 0"),
        ("1,7,2,3", "expected frame,id,left"),
        ("one,7,2,3,4,5", "expected frame,id,left"),
        ("1.5,7,2,3,4,5", "'1.5' is not a whole number"),
        ("1,9223372036854775808,2,3,4,5", "is beyond 64 bits"),
        ("1,7,2,3,1e39,5", "frame 1: box 0 .*finite"),
        ('1,7,"' + "9" * 200_000, "cannot be read as cells"),
    ],
)
def test_bad_mot_rows(tmp_path: Path, row: str, fault: str) -> None:
    write_mot_sequence(tmp_path, row)
    with pytest.raises(UserError, match=fault):
        mot(tmp_path)


@pytest.mark.parametrize(
    ("info", "fault"),
    [
        ("name=a\nimWidth=16\nimHeight=12\n", r"has no readable section \[Sequence\]"),
        ("[Other]\nname=a\n", r"has no readable section \[Sequence\]"),
        ("[Sequence]\nimWidth=16\nimHeight=0\n", "imHeight and imWidth must be at least 1, got 0 and 16"),
        ("[Sequence]\nimWidth=wide\nimHeight=12\n", "must be whole numbers"),
        (b"[Sequence]\nname=caf\xe9\n", "UTF-8"),
        ("[Sequence]\nimDir=\n", "imDir: expected the name of a file"),
        ("[Sequence]\nimDir=a\0b\n", "imDir: no file can have the name"),
    ],
)
def test_bad_mot_infos(tmp_path: Path, info: str | bytes, fault: str) -> None:
    write_mot_sequence(tmp_path, "1,7,2,3,4,5", info=False)
    (tmp_path / "seqinfo.ini").write_bytes(info if isinstance(info, bytes) else info.encode())
    with pytest.raises(UserError, match=fault):
        mot(tmp_path)


@pytest.mark.parametrize("length", ["3", "1", "many"])
def test_a_mot_sequence_with_an_image_missing_is_refused(tmp_path: Path, length: str) -> None:
    write_mot_sequence(tmp_path, "1,7,2,3,4,5", info=False)
    (tmp_path / "seqinfo.ini").write_text(f"[Sequence]\nseqLength={length}\n")
    with pytest.raises(UserError, match=f"img1: has 2 images, expected '{length}', the seqLength of seqinfo.ini"):
        mot(tmp_path)


def test_mot_of_another_size_than_its_images(tmp_path: Path) -> None:
    write_mot_sequence(tmp_path, "1,7,2,3,4,5")
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nimWidth=16\nimHeight=24\n")
    [sequence] = mot(tmp_path).sequences
    with pytest.raises(UserError, match="frame 1: is 16x12, expected 16x24 as its annotation says"):
        sequence.image(1)


def test_mot_names_with_percent_signs(tmp_path: Path) -> None:
    scene = synthetic(num_sequences=1, num_frames=1, size=(32, 48)).sequences[0]
    images = tmp_path / "100%"
    write_images(images, "a.png", size=(32, 48))
    boxed = BoxedSequence(ImageSequence("100%", images_in(images)), [scene.boxes(0)])
    write_mot(VideoDataset("x", [boxed], ("a", "b", "c", "d")), tmp_path / "mot")
    [read] = mot(tmp_path / "mot", class_names=("a",), all_classes=("a", "b", "c", "d")).sequences
    assert (read.name, read.image(0).shape) == ("100%", (32, 48, 3))


@pytest.mark.parametrize("name", ["mot", "pets"])
def test_tables_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    if name == "mot":
        write_mot_sequence(tmp_path, "")
        (tmp_path / "gt" / "gt.txt").write_bytes(b"1,\xff")
    else:
        write_pets(tmp_path, [])
        (tmp_path / "gt.csv").write_bytes(b"frame,\xff")
    with pytest.raises(UserError, match="UTF-8"):
        {"mot": mot, "pets": pets}[name](tmp_path)


def test_no_mot_sequences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no gt/gt"):
        mot(tmp_path)
    with pytest.raises(UserError, match=r"class_names: must be among pedestrian, .* got 'dog'"):
        mot(tmp_path, class_names=("dog",))
    write_mot_sequence(tmp_path, "1,7,2,3,4,5")
    with pytest.raises(UserError, match="selects none of them"):
        mot(tmp_path, frames=(5, 6))


def xml(*objects: tuple[str, str, str]) -> str:
    """An annotation of a frame 16×12; objects: wnid, track, and the four corners."""
    parts = [
        f"<object><trackid>{track}</trackid><name>{name}</name><bndbox>"
        + "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=True))
        + "</bndbox></object>"
        for name, track, corners in objects
    ]
    return f"<annotation><size><width>16</width><height>12</height></size>{''.join(parts)}</annotation>"


def write_imagenet(root: Path, kind: str, folder: str, *annotations: str) -> Path:
    names = [f"{i:06d}" for i in range(len(annotations))]
    write_images(root / "Data" / kind / folder, *(f"{name}.JPEG" for name in names))
    target = root / "Annotations" / kind / folder
    target.mkdir(parents=True)
    for name, text in zip(names, annotations, strict=True):
        (target / f"{name}.xml").write_text(text)
    return root


def test_imagenet_vid_worked_by_hand(tmp_path: Path) -> None:
    car = xml(("n02958343", "0", "1 2 5 6"), ("n02691156", "1", "0 0 20 12"))
    write_imagenet(tmp_path, "VID", "train/part/snippet", car, xml())
    dataset = imagenet_vid(tmp_path)
    assert (len(CLASSES), dataset.class_names[0], dataset.class_names[-1]) == (30, "airplane", "zebra")
    [sequence] = dataset.sequences
    assert (sequence.name, len(sequence)) == ("part/snippet", 2)
    boxes = sequence.boxes(0)
    assert [dataset.class_names[label] for label in boxes.labels] == ["car", "airplane"]
    assert boxes.xyxy.tolist() == [[1, 2, 5, 6], [0, 0, 16, 12]]
    assert boxes.instances.tolist() == [0, 1]
    assert len(sequence.boxes(1)) == 0
    small = imagenet_vid(tmp_path, height=6).sequences[0]
    assert small.image(0).shape == (6, 8, 3)
    assert small.boxes(0).xyxy.tolist() == [[0.5, 1, 2.5, 3], [0, 0, 8, 6]]
    with pytest.raises(UserError, match="height must be at least 1, got 0"):
        imagenet_vid(tmp_path, height=0)
    assert len(imagenet_vid(tmp_path, frames=(1, 9)).sequences[0]) == 1
    with pytest.raises(UserError, match="selects none of them"):
        imagenet_vid(tmp_path, frames=(2, 3))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (xml(("n00000001", "0", "1 2 5 6")), "must name classes of ImageNet VID's 30, got 'n00000001'"),
        (xml(("n02958343", "0", "5 2 5 6")), "must have a width and a height above 0"),
        (xml(("n02958343", "0", "5 2 nan 6")), "finite"),
        ("<annotation>", "cannot be read"),
        ("<annotation/>", "lacks size/height"),
        (xml().replace("<height>12", "<height>0"), "its size is 16x0"),
    ],
)
def test_bad_imagenet_annotations_are_problems(tmp_path: Path, text: str, fault: str) -> None:
    write_imagenet(tmp_path, "VID", "train/snippet", text)
    sequence = imagenet_vid(tmp_path).sequences[0]
    with pytest.raises(UserError, match=fault):
        sequence.boxes(0)
    assert len(sequence.problems()) == 1


def test_imagenet_annotations_of_another_size(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "VID", "train/snippet", xml(), xml().replace("<width>16", "<width>32"))
    [sequence] = imagenet_vid(tmp_path).sequences
    assert sequence.image(0).shape == (12, 16, 3)
    with pytest.raises(UserError, match="frame 1: is 16x12, expected 32x12 as its annotation says"):
        sequence.image(1)
    assert len(sequence.problems()) == 1


def test_missing_imagenet_annotations(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "VID", "val/snippet", xml())
    (tmp_path / "Annotations" / "VID" / "val" / "snippet" / "000000.xml").unlink()
    with pytest.raises(UserError, match="annotation not found"):
        imagenet_vid(tmp_path, split="val").sequences[0].boxes(0)
    with pytest.raises(UserError, match="folder not found"):
        imagenet_vid(tmp_path, split="train")


def test_imagenet_det_keeps_the_classes_of_vid(tmp_path: Path) -> None:
    zebra, other = ("n02391049", "0", "2 2 5 6"), ("n00000001", "0", "1 2 5 6")
    write_imagenet(tmp_path, "DET", "train/a", xml(other, zebra), xml(zebra), xml(other), xml(), "<annotation>")
    (tmp_path / "Annotations" / "DET" / "train" / "a" / "000001.xml").unlink()
    dataset = imagenet_det(tmp_path)
    assert [sequence.name for sequence in dataset.sequences] == ["a/000000", "a/000004"]
    assert "cannot be read" in dataset.sequences[1].problems()[0]
    assert dataset.sequences[0].boxes(0).labels.tolist() == [29]


def write_pets(root: Path, rows: list[str]) -> Path:
    with VideoWriter(root / "vtest.avi", fps=7) as writer:
        for index in range(3):
            writer.write(np.full((32, 48, 3), 20 * index, dtype=np.uint8))
    (root / "gt.csv").write_text("\n".join(["frame,id,x,y,w,h", *rows]))
    return root


def test_pets_worked_by_hand(tmp_path: Path) -> None:
    write_pets(tmp_path, ["0,9,1.5,2,3,4", "2,9,40,2,10,4", "2,15,1,1,1,1"])
    [sequence] = pets(tmp_path).sequences
    assert [len(sequence.boxes(i)) for i in range(3)] == [1, 0, 2]
    assert sequence.boxes(0).xyxy.tolist() == [[1.5, 2, 4.5, 6]]
    assert sequence.boxes(2).xyxy.tolist() == [[40, 2, 48, 6], [1, 1, 2, 2]]
    assert sequence.boxes(2).instances.tolist() == [9, 15]
    part = pets(tmp_path, frames=(1, 3), height=16).sequences[0]
    assert part.boxes(1).xyxy.tolist() == [[20, 1, 24, 3], [0.5, 0.5, 1, 1]]
    assert part.image(1).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("3,9,1,1,1,1", "frame must be from 0 to 2, as in the video, got 3"),
        ("0,9,1,1,1", "expected frame,id,x,y,w,h"),
        ("0,9,1,1,0,1", "frame 0: box 0"),
    ],
)
def test_bad_pets_rows(tmp_path: Path, row: str, fault: str) -> None:
    write_pets(tmp_path, [row])
    with pytest.raises(UserError, match=fault):
        pets(tmp_path)


def test_pets_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file not found"):
        pets(tmp_path)


def assert_same_boxes(found: VideoDataset, expected: VideoDataset) -> None:
    assert [s.name for s in found.sequences] == [s.name for s in expected.sequences]
    for one, other in zip(found.sequences, expected.sequences, strict=True):
        assert len(one) == len(other)
        for index in range(len(one)):
            a, b = one.boxes(index), other.boxes(index)
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-5)
            assert a.labels.tolist() == b.labels.tolist()
            assert a.instances.tolist() == b.instances.tolist()
            assert (a.crowd | False).tolist() == (np.zeros(len(b), bool) if b.crowd is None else b.crowd).tolist()


BOX = st.tuples(*[st.floats(0, 7, width=32)] * 2, *[st.floats(0.5, 5, width=32)] * 2)
THING = st.tuples(BOX, st.integers(0, 2), st.integers(0, 9), st.booleans())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(THING, max_size=3), min_size=3, max_size=3))
def test_there_and_back_again(tmp_path: Path, frames) -> None:
    if not (tmp_path / "frames").exists():
        write_images(tmp_path / "frames" / "walk", "a.png", "b.png", "c.png")
    boxes = [
        Boxes.of(
            [[x, y, x + w, y + h] for (x, y, w, h), *_ in things], [label for _, label, _, _ in things],
            instances=[i for _, _, i, _ in things], crowd=[crowd for *_, crowd in things],
        ) for things in frames
    ]  # fmt: skip
    names = ("cat", "dog", "owl")
    sequence = BoxedSequence(ImageSequence("walk", images_in(tmp_path / "frames" / "walk")), boxes)
    dataset = VideoDataset("pets", [sequence], names)
    write_mot(dataset, tmp_path / "mot")
    from_mot = mot(tmp_path / "mot", class_names=names, all_classes=names)
    assert_same_boxes(from_mot, dataset)
    write_coco_video(from_mot, tmp_path / "coco" / "annotations.json")
    from_coco = coco_video(tmp_path / "coco")
    assert_same_boxes(from_coco, dataset)
    assert from_coco.class_names == names
    assert (from_coco.sequences[0].image(2) == sequence.image(2)).all()


def test_frames_that_are_no_files_are_written(tmp_path: Path) -> None:
    dataset = synthetic(num_sequences=2, num_frames=2, size=(32, 48))
    write_coco_video(dataset, tmp_path)
    write_mot(dataset, tmp_path / "mot")
    names = dataset.class_names
    for read in (coco_video(tmp_path), mot(tmp_path / "mot", class_names=names, all_classes=names)):
        assert_same_boxes(read, dataset)
        assert (read.sequences[1].image(1) == dataset.sequences[1].image(1)).all()
        assert read.problems() == []


def test_sequences_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    scenes = synthetic(num_sequences=3, num_frames=2, size=(32, 48)).sequences
    boxed = [replace(scene, name="walk") for scene in scenes]
    names = ("a", "b", "c", "d")
    write_coco_video(VideoDataset("x", boxed, names), tmp_path)
    write_mot(VideoDataset("x", boxed, names), tmp_path / "mot")
    for read in (coco_video(tmp_path), mot(tmp_path / "mot", class_names=names, all_classes=names)):
        assert [sequence.name for sequence in read.sequences] == ["walk", "walk_2", "walk_3"]
        for one, other in zip(read.sequences, scenes, strict=True):
            assert (one.image(1) == other.image(1)).all()
            np.testing.assert_allclose(one.boxes(1).xyxy, other.boxes(1).xyxy, atol=1e-5)


def test_names_that_are_taken() -> None:
    assert unique_name("clip.mp4", set()) == "clip.mp4"
    assert unique_name("clip.mp4", {"clip.mp4", "clip_2.mp4"}) == "clip_3.mp4"
    assert unique_name("part.1/walk", {"part.1/walk"}) == "part.1/walk_2"


def test_only_boxes_can_be_written(tmp_path: Path) -> None:
    write_images(tmp_path / "walk", "a.png", "b.png")
    images = images_in(tmp_path / "walk")
    plain = VideoDataset("plain", [ImageSequence("walk", images)])
    for write in (lambda: write_mot(plain, tmp_path), lambda: write_coco_video(plain, tmp_path / "a.json")):
        with pytest.raises(UserError, match="no boxes to write"):
            write()


def test_frames_of_a_part_of_a_folder_are_written_for_mot(tmp_path: Path) -> None:
    write_images(tmp_path / "walk", "a.png", "b.png")
    part = BoxedSequence(ImageSequence("walk", images_in(tmp_path / "walk")[1:]), [Boxes.of([[0, 0, 3, 3]], [0])])
    write_mot(VideoDataset("part", [part], ("cat",)), tmp_path / "mot")
    [read] = mot(tmp_path / "mot", class_names=("cat",), all_classes=("cat",)).sequences
    assert [int(image.max()) for image in read.images()] == [10]


@pytest.mark.parametrize(("frames", "names_video"), [(None, True), ((0, 2), True), ((1, 3), False)])
def test_a_video_stays_a_video(tmp_path: Path, frames: tuple[int, int] | None, names_video: bool) -> None:
    (tmp_path / "pets").mkdir()
    dataset = pets(write_pets(tmp_path / "pets", ["0,9,1.5,2,3,4", "1,9,2,2,3,4", "2,9,3,2,3,4"]), frames=frames)
    write_coco_video(dataset, tmp_path / "coco")
    [video] = json.loads((tmp_path / "coco" / "annotations.json").read_text())["videos"]
    assert video.get("file_name") == ("../pets/vtest.avi" if names_video else None)
    assert len(list((tmp_path / "coco").rglob("*.png"))) == (0 if names_video else 2)
    read = coco_video(tmp_path / "coco")
    assert_same_boxes(read, dataset)
    assert (read.sequences[0].image(1) == dataset.sequences[0].image(1)).all()


def test_paths_lead_through_linked_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "walk", "a.png")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    frames = ImageSequence("walk", images_in(tmp_path / "data" / "walk"))
    dataset = VideoDataset("x", [BoxedSequence(frames, [Boxes.of([[0, 0, 3, 3]], [0]).clipped((12, 16))])], ("cat",))
    write_coco_video(dataset, tmp_path / "link" / "coco")
    write_mot(dataset, tmp_path / "link" / "mot")
    for read in (coco_video(tmp_path / "link" / "coco"), mot(tmp_path / "link" / "mot")):
        assert read.sequences[0].image(0).shape == (12, 16, 3)


def test_the_table_of_mot_is_plain_csv(tmp_path: Path) -> None:
    dataset = synthetic(num_sequences=1, num_frames=1, size=(32, 48))
    write_mot(dataset, tmp_path)
    name, boxes = dataset.sequences[0].name, dataset.sequences[0].boxes(0)
    with open(tmp_path / name / "gt" / "gt.txt", newline="") as file:
        rows = list(csv.reader(file))
    assert [[float(v) for v in row[2:6]] for row in rows] == [
        [left + 1, top + 1, right - left, bottom - top] for left, top, right, bottom in boxes.xyxy.tolist()
    ]
    assert all(row[0] == "1" for row in rows)
