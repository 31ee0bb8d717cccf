"""What other programs write, read as they meant it; and names from files, which never lead out of a folder."""

import json
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.command_line import run
from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.coco_video import coco_video
from vidistill.data.datasets.label_maps import label_maps
from vidistill.data.datasets.labelled_videos import labelled_videos, write_labelled_frames
from vidistill.data.datasets.mot import mot
from vidistill.data.foreign import listed_path, read_json, read_rows, safe_name, whole_number
from vidistill.data.sequences.classified import ClassifiedVideo
from vidistill.data.sequences.frame_files import folder_name
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError
from vidistill.tasks.segmentation.show import LabelMapFolder


@pytest.mark.parametrize("value", [3, 3.0, "3", " 3 ", "3.0", "3.00e+00", "+3"])
def test_whole_numbers_as_programs_write_them(value: object) -> None:
    assert whole_number(value) == 3


@pytest.mark.parametrize(
    "value", [2.5, "2.5", "²", "three", "", "1_0", None, True, [3], float("nan"), float("inf"), 2**63, "9" * 40, 1e300]
)
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        whole_number(value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("gap", [",", ";", "\t", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_every_program(tmp_path: Path, encoding: str, gap: str, end: str) -> None:
    lines = ["# a comment", gap.join(["1", "ä\u2028b", "2.0"]), "", gap.join(["3", '"c"', "4", ""]) + gap, "", ""]
    (tmp_path / "a.csv").write_bytes(end.join(lines).encode(encoding))
    rows = read_rows(tmp_path / "a.csv")
    expected = [["1", "ä\u2028b", "2.0"], ["3", '"c"' if gap == " " else "c", "4"]]
    if gap == " ":
        expected[0] = ["1", "ä", "b", "2.0"]  # U+2028 is a space, and no new line
    assert [row.cells for row in rows] == expected
    assert [row.where for row in rows] == [f"{tmp_path / 'a.csv'}:{number}" for number in (2, 4)]


def test_json_too_deep_and_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.json: cannot be read as a list \(it is nested too deep\); look at it"):
        read_json(path, "a list", advice="look at it")
    path.write_bytes('["ä"]'.encode("utf-16"))
    assert read_json(path, "a list", advice="") == ["ä"]


def test_names_of_files_in_annotations(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"")
    (tmp_path / "b\\c.png").write_bytes(b"")
    assert listed_path(tmp_path, "sub\\a.png", where="x").is_file()
    assert listed_path(tmp_path, "b\\c.png", where="x").is_file()
    for name in ("", "  ", None, 3, "a\0", "x" * 256, "x/" * 3000, "\ud800"):
        with pytest.raises(UserError, match=r"^here: "):
            listed_path(tmp_path, name, where="here")


NAMES = [
    "../../victim", "..", ".", "", "/etc/passwd", "C:\\Windows\\a", "c:a", "a\0b", "a\nimDir=/etc", "x" * 5000,
    "ü" * 300, "CON", "nul.txt", "com1", "a/b", "a\\b", ".hidden", "a.", "\ud800", "a\u202eb", "a\u2028b", "a|b?*<>",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.text() | st.sampled_from(NAMES))
@example("a/../..")
@example("ﾉ．．" * 60)
def test_a_safe_name_is_one_part_of_a_path_on_every_system(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(os.fsencode(safe)) <= 121
    assert len(safe.splitlines()) == 1
    assert not set(safe) & set('/\\:\0\n\r<>"|?*')
    assert PurePosixPath(safe).parts == PureWindowsPath(safe).parts == (safe,)
    assert not safe.startswith(".")
    assert not safe.endswith((".", " "))
    assert safe_name(safe) == safe


def test_folders_never_share_a_name() -> None:
    taken: set[str] = set()
    names = [folder_name(name, taken) for name in ("a/b", "a_b", "A_b", "a\\b", "../a_b", "")]
    assert names == ["a_b", "a_b_2", "A_b_3", "a_b_4", "a_b_5", "_"]


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("layout", ["coco_video", "mot"])
def test_a_video_called_anything_stays_in_the_new_folder(tmp_path: Path, layout: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    images = []
    for number in range(2 * len(NAMES)):
        PillowImage.fromarray(np.full((8, 8, 3), number, np.uint8)).save(data / f"{number}.png")
        image = {"id": number, "video_id": number // 2, "frame_id": number % 2, "height": 8, "width": 8}
        images.append(image | {"file_name": f"{number}.png"})
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4], "instance_id": n} for n in range(len(images))
    ]
    contents = {
        "videos": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
        "images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip
    (data / "annotations.json").write_text(json.dumps(contents))
    before = everything_below(tmp_path)
    out = tmp_path / "out"
    # resized frames are written, and not left where they are
    assert run("convert", f"coco_video,root={data},height=4", str(out), "--layout", layout) == 0
    outside = {path for path in everything_below(tmp_path) if path.partition("/")[0] != "out"}
    assert outside == before
    reader = {"coco_video": coco_video, "mot": lambda root: mot(root, class_names=["a"], all_classes=["a"])}[layout]
    sequences = reader(out).sequences
    assert len(sequences) == len(NAMES)
    levels = sorted((int(s.image(0)[0, 0, 0]), s.boxes(0).xyxy.tolist(), len(s)) for s in sequences)
    assert levels == [(2 * number, [[0.5, 1, 2, 3]], 2) for number in range(len(NAMES))]


def test_labels_of_a_video_called_anything_stay_in_the_new_folder(tmp_path: Path) -> None:
    frame, labels = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    names = [name for name in NAMES if "/" not in name]
    with LabelMapFolder(tmp_path / "out", {"a": 0, "b": 1}, 2) as files:
        for name in names:
            files.begin(name)
            files.add(frame, labels)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(label_maps(tmp_path / "out").sequences) == len(names)


def test_frames_of_a_video_called_anything_stay_in_the_new_folder(tmp_path: Path) -> None:
    place = tmp_path / "data" / ("x" * 200) / "a\nb"
    place.mkdir(parents=True)
    PillowImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "0.png")
    video = ClassifiedVideo(ImageSequence("../" + "x" * 300 + "\n", [place / "0.png"]), (0,), {}, None)
    write_labelled_frames(VideoDataset("x", [video], ("a",)), tmp_path / "out")
    [folder] = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert folder.name == "000000_" + "x" * 120
    assert len(labelled_videos(tmp_path / "out", list_file="labels.csv").sequences[0]) == 1


def test_a_folder_whose_name_breaks_a_line_is_copied(tmp_path: Path) -> None:
    folder = tmp_path / "a\nimDir=" / "b"
    folder.mkdir(parents=True)
    PillowImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")
    name = str(folder / "0.png")
    contents = {
        "videos": [{"id": 1, "name": "v"}], "annotations": [], "categories": [{"id": 1, "name": "a"}],
        "images": [{"id": 1, "video_id": 1, "frame_id": 0, "height": 8, "width": 8, "file_name": name}],
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(contents))
    assert run("convert", f"coco_video,root={tmp_path / 'data'}", str(tmp_path / "out"), "--layout", "mot") == 0
    assert (tmp_path / "out" / "v" / "seqinfo.ini").read_text().count("imDir=img1\n") == 1
    assert len(mot(tmp_path / "out").sequences[0]) == 1
