"""Lists of videos with classes, in every layout, and one sentence for everything that is wrong with one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.example_files import cut_short, write_image, write_video
from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.labelled_videos import labelled_videos, write_labelled_frames
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.sequences.classified import classes_of
from vidistill.errors import UserError


def listed(root: Path, text: str, **options) -> VideoDataset:
    (root / "list.txt").write_text(text)
    return labelled_videos(root, **options)


def contents(dataset: VideoDataset) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(s.name, len(s), classes_of(s)) for s in dataset.sequences]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two videos and two folders of frames."""
    write_video(tmp_path / "a.mp4", num_frames=3)
    write_video(tmp_path / "of two, words" / "b 2.mp4", num_frames=4)
    for i in range(5):
        write_image(tmp_path / "frames" / f"{i}.png", level=10 * i)
        write_image(tmp_path / "take 07" / f"{i}.png", level=10 * i)
    return tmp_path


@pytest.mark.parametrize("gap", [" ", "  ", "\t", ",", ", "])
def test_kinetics_lists(place: Path, gap: str) -> None:
    lines = [("a.mp4", 0), ("of two, words/b 2.mp4", 2), ("frames", 300, 1), ("take 07", 5, 0)]
    dataset = listed(place, "\n".join(gap.join(map(str, line)) for line in lines) + "\n\n")
    assert contents(dataset) == [
        ("a.mp4", 3, (0,)), ("of two, words/b 2.mp4", 4, (2,)), ("frames", 5, (1,)), ("take 07", 5, (0,)),
    ]  # fmt: skip
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.problems() == ["frames: has 5 frames, expected 300 as its list says"]


def test_a_number_in_a_folders_name_is_told_from_its_length(place: Path) -> None:
    for i in range(4):
        write_image(place / "take" / f"{i}.png", level=10 * i)
    dataset = listed(place, "take 07 5 1\ntake 4 1 0\n")
    assert contents(dataset) == [("take 07", 5, (1,)), ("take", 4, (1, 0))]
    assert dataset.problems() == []


def test_frames_come_in_natural_order(place: Path) -> None:
    for i in (5, 9, 10, 11):
        write_image(place / "frames" / f"{i}.png", level=10 * i)
    frames = listed(place, "frames 9 0").sequences[0]
    assert [int(frames.image(i)[0, 0, 0]) for i in range(len(frames))] == [0, 10, 20, 30, 40, 50, 90, 100, 110]


def test_several_labels_a_line(place: Path) -> None:
    dataset = listed(place, "a.mp4 0 3\nframes 5 2 1 3\n", num_classes=6)
    assert [classes_of(s) for s in dataset.sequences] == [(0, 3), (2, 1, 3)]
    assert dataset.num_classes == 6


def test_a_table_with_a_header_names_and_several_labels(place: Path) -> None:
    text = 'name,label,file,sequence\nshake,1,a.mp4,1\n"hug, long",0,"of two, words/b 2.mp4",2\nshake,1;2,frames,\n'
    dataset = listed(place, "\ufeff" + text)
    assert contents(dataset) == [("a.mp4", 3, (1,)), ("of two, words/b 2.mp4", 4, (0,)), ("frames", 5, (1, 2))]
    assert dataset.class_names == ("hug, long", "shake", "2")


@pytest.mark.parametrize(
    "text",
    [
        'File;Label;name\r\na.mp4;1;shake\r\n"of two, words/b 2.mp4";0;hug\r\n\r\n',
        "label\tfile\n1.0\ta.mp4\n0\tof two, words/b 2.mp4\n",
        "# from a table\n'a.mp4' 1\n# and another\n\"of two, words/b 2.mp4\"\t0.0\n",
        'file,label\na.mp4,1\n"of two, words\\b 2.mp4",0\n',
        "a.mp4;1\nof two, words/b 2.mp4;0",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_other_programs(place: Path, text: str, encoding: str) -> None:
    (place / "list.txt").write_bytes(text.encode(encoding))
    dataset = labelled_videos(place)
    assert [(len(s), classes_of(s)) for s in dataset.sequences] == [(3, (1,)), (4, (0,))]


def test_named_classes_and_a_height(place: Path) -> None:
    dataset = listed(place, "a.mp4 1", class_names=["sit", "stand"], height=16)
    assert dataset.class_names == ("sit", "stand")
    assert dataset.sequences[0].image(0).shape == (16, 24, 3)


# Folds


def grouped(root: Path, groups: list[str], **options) -> list[str]:
    """The names of the videos that `options` choose of one video a group."""
    write_image(root / "frames" / "0.png")
    rows = [f"./{'./' * i}frames,0,{group}" for i, group in enumerate(groups)]
    (root / "list.csv").write_text("\n".join(["file,label,sequence", *rows]))
    dataset = labelled_videos(root, list_file="list.csv", group="sequence", **options)
    return [sequence.name for sequence in dataset.sequences]


def test_folds_are_the_same_in_every_process(tmp_path: Path) -> None:
    groups = [f"cam{number}/1" for number in (3, 6, 1, 4, 2, 5)]  # the same last part, which is what sorts paths
    tested = grouped(tmp_path, groups, folds=2, fold=0, split="test")
    assert tested == ["./frames", "./././frames", f"{'./' * 6}frames"]  # of cameras 3, 1, 5


@settings(max_examples=25)
@given(groups=st.lists(st.sampled_from(["", "1", "2", "10", "x"]), min_size=2, max_size=9), folds=st.integers(1, 5))
def test_every_group_is_tested_once_and_what_has_none_only_trains(tmp_path_factory, groups, folds) -> None:
    root = tmp_path_factory.mktemp("folds")
    if folds > len(set(groups) - {""}):
        with pytest.raises(UserError, match=f"got fold 0 of {folds}"):
            grouped(root, groups, folds=folds)
        return
    everything = [f"./{'./' * i}frames" for i in range(len(groups))]
    tested = []
    for fold in range(folds):
        test = grouped(root, groups, folds=folds, fold=fold, split="test")
        train = grouped(root, groups, folds=folds, fold=fold, split="train")
        assert sorted(test + train) == sorted(everything)
        of = dict(zip(everything, groups, strict=True))
        assert not {of[name] for name in test} & {of[name] for name in train}, "no group is in both"
        tested += test
    assert sorted(tested) == sorted(name for name, group in zip(everything, groups, strict=True) if group)


def test_groups_are_dealt_in_natural_order(tmp_path: Path) -> None:
    names = ["./frames", "././frames", "./././frames"]
    groups = ["10", "9", "1"]  # in natural order 1, 9, 10
    found = [grouped(tmp_path, groups, folds=2, fold=fold, split="test") for fold in (0, 1)]
    assert found == [[names[0], names[2]], [names[1]]]


# Mistakes


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a.mp4 0\na.mp4\n", {}, r"list\.txt:2: has no label; a line is `path label`"),
        ("a.mp4 zero", {}, r"list\.txt:1: has no label"),
        ("a.mp4 -1", {}, r"list\.txt:1: has no label"),
        ("a.mp4 ²", {}, r"list\.txt:1: has no label"),
        ("file,label\na\0.mp4,1", {}, r"list\.txt:2: "),
        ("x" * 300 + " 1", {}, r"list\.txt:1: no file can have the name"),
        ("frames 0", {}, r"list\.txt:1: has no label; a line for a folder of frames is `folder total_frames label`"),
        ("a.mp4 0\n\na.mp4 4", {"num_classes": 4}, r"list\.txt:3: label must be below 4, got 4"),
        ("a.mp4 1", {"class_names": ["one"]}, "label must be below 1, got 1"),
        ("a.mp4 0\nb.mp4 0", {}, r"list\.txt:2: .*b\.mp4 not found; check the list and root"),
        ("empty 3 0", {}, r"list\.txt:1: the folder .*empty has no frames"),
        ("", {}, "the list of videos is empty"),
        ("file,label\n", {}, "the list of videos is empty"),
        ("movie,label\na.mp4,0", {}, "its header has no column for the file; name it one of file, path, video, clip"),
        ("file,label\na.mp4,x", {}, r"list\.txt:2: label must be whole numbers from 0, got 'x'"),
        ("file,label\na.mp4,²", {}, r"list\.txt:2: label must be whole numbers from 0, got '²'"),
        ("file,label\na.mp4,", {}, r"list\.txt:2: label must be whole numbers from 0, got ''"),
        ("file,label\na.mp4", {}, r"list\.txt:2: label must be whole numbers from 0, got ''"),
        ("label,file\n0", {}, r"list\.txt:2: has no file in the column"),
        ("file,label,take\na.mp4,0,1", {"group": "tkae", "folds": 1}, "no column 'tkae' .* did you mean take"),
        ("a.mp4 0", {"group": "take", "folds": 1}, "no column 'take' to make folds by"),
        ("file,label,take\na.mp4,0,1\na.mp4,0", {"group": "take", "folds": 2}, "folds at most 1, .* got fold 0 of 2"),
        ("file,label,take\na.mp4,0,1", {"group": "take", "folds": 1, "fold": 1}, "got fold 1 of 1"),
        ("a.mp4 0", {"split": "test"}, "split: test needs group and folds"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_sentence(place: Path, text: str, options: dict, sentence: str) -> None:
    (place / "empty").mkdir()
    with pytest.raises(UserError, match=sentence) as caught:
        listed(place, text, **options)
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list\.txt: the list of videos cannot be read"):
        labelled_videos(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        labelled_videos(tmp_path)


def test_what_cannot_be_decoded_is_named_when_it_is_checked(place: Path) -> None:
    cut_short(write_image(place / "frames" / "3.png", size=(64, 64)))
    (place / "a.mp4").write_bytes(b"no video")
    problems = listed(place, "a.mp4 0\nframes 5 1\ntake 07 5 1\n").problems()
    assert [name in problem for name, problem in zip(("a.mp4", "3.png"), problems, strict=True)] == [True, True]
    with pytest.raises(UserError, match=r"a\.mp4"):
        len(listed(place, "a.mp4 0").sequences[0])


def test_labels_of_pixels_there_are_none(place: Path) -> None:
    video = listed(place, "frames 5 1").sequences[0]
    assert video.labels(0) is None
    assert list(video.labelled()) == []
    assert len(list(video.images())) == 5
    assert np.array_equal(next(iter(video.images())), video.image(0))


def test_written_as_frames_a_set_is_itself_again(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (place / "list.csv").write_text(f"file,label,name,scene\n{place}/a.mp4,0,wave,1\n./x/../frames,1;0,hug,2\n")
    (place / "x").mkdir()
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    dataset = labelled_videos(place, list_file="list.csv", class_names=["wave", "hug", "kick"])
    folder = tmp_path_factory.mktemp("written")
    write_labelled_frames(dataset, folder)
    written = labelled_videos(folder, list_file="labels.csv")
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert contents(written) == [("000000_a", 3, (0,)), ("000001_frames", 5, (1, 0))]
    assert written.class_names == ("wave", "hug", "kick")
    for before, after in zip(dataset.sequences, written.sequences, strict=True):
        for index in range(len(before)):
            gap = after.image(index).astype(int) - before.image(index)
            assert abs(gap).mean() < 2  # grey levels
    tested = labelled_videos(folder, list_file="labels.csv", group="scene", folds=2, fold=1, split="test")
    assert [sequence.name for sequence in tested.sequences] == ["000001_frames"]


def test_what_is_no_list_of_names_is_said(place: Path) -> None:
    (place / "classes.json").write_text('{"0": "wave"}')
    with pytest.raises(UserError, match=r"classes\.json: must be a JSON list of class names"):
        listed(place, "a.mp4 0")
    assert listed(place, "a.mp4 0", class_names=["wave"]).class_names == ("wave",)


def test_videos_without_a_class_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="synthetic_0000: has no class to write"):
        write_labelled_frames(synthetic(num_sequences=1, num_frames=2, size=(16, 16)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_decoded_is_left_out_and_said(place: Path, tmp_path: Path) -> None:
    (place / "frames" / "3.png").write_bytes(b"no image")
    written = tmp_path / "written"
    left_out = write_labelled_frames(listed(place, "a.mp4 0\nframes 5 1\ntake 07 5 1\n"), written)
    assert [problem.partition(": cannot")[0] for problem in left_out] == [str(place / "frames" / "3.png")]
    assert contents(labelled_videos(written, list_file="labels.csv")) == [
        ("000000_a", 3, (0,)), ("000002_take 07", 5, (1,)),
    ]  # fmt: skip
    assert not list(written.glob("000001*"))


def test_where_nothing_can_be_decoded_that_is_said(place: Path, tmp_path: Path) -> None:
    cut_short(place / "a.mp4")
    with pytest.raises(UserError, match=r"none of the 1 videos can be decoded: .*a\.mp4"):
        write_labelled_frames(listed(place, "a.mp4 0\n"), tmp_path / "written")


def test_a_full_disk_is_no_broken_video(place: Path, tmp_path: Path) -> None:
    (tmp_path / "written").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="written") as raised:
        write_labelled_frames(listed(place, "a.mp4 0\n"), tmp_path / "written")
    assert "decoded" not in str(raised.value)


def test_a_list_in_a_folder_of_its_own_reads_alike(place: Path) -> None:
    (place / "lists").mkdir()
    (place / "lists" / "train.txt").write_text("frames 5 1\ntake 07 5 0\na.mp4 2\n")
    (place / "train.txt").write_text("frames 5 1\ntake 07 5 0\na.mp4 2\n")
    beside, apart = (labelled_videos(place, list_file=name) for name in ("train.txt", "lists/train.txt"))
    assert contents(apart) == contents(beside) == [("frames", 5, (1,)), ("take 07", 5, (0,)), ("a.mp4", 3, (2,))]
    assert apart.problems() == []


def test_a_label_beyond_reason_names_its_line(place: Path) -> None:
    with pytest.raises(UserError, match=r"list\.txt:2: label must be below 100000, got 1699999999"):
        listed(place, "frames 5 1\na.mp4 1699999999\n")


def test_no_height_is_said(place: Path) -> None:
    with pytest.raises(UserError, match="height must be at least 1, got 0"):
        listed(place, "a.mp4 0\n", height=0)
