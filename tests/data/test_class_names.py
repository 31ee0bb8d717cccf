import json
from pathlib import Path

import pytest

from vidistill.data.class_names import read_class_names, require_classes
from vidistill.data.clip import VideoDataset
from vidistill.errors import UserError


def named(*names: str) -> VideoDataset:
    return VideoDataset("other", [], names)


@pytest.mark.parametrize("names", [(), ("cat", "dog", "2"), ("cat", "dog", "owl"), ("0", "1"), ("cat", "1", "owl")])
def test_sets_of_the_same_classes(names: tuple[str, ...]) -> None:
    require_classes(("cat", "dog", "owl"), "first", [named(*names)])
    require_classes((), "nobody", [named(*names)])


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("dog", "cat", "owl"), "other has 'dog' for class 0 where first has 'cat'"),
        (("cat", "dog"), "other has 2 classes and first 3"),
        (("cat", "dog", "owl", "eel"), "4 classes and first 3"),
        (("0", "1", "2", "3"), "4 classes and first 3"),
    ],
)
def test_sets_of_other_classes(names: tuple[str, ...], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        require_classes(("cat", "dog", "owl"), "first", [named("cat", "dog", "owl"), named(*names)])


def test_class_names_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(["Straße", " car ", 2]), encoding="utf-8-sig")
    assert read_class_names(path) == ("Straße", "car", "2")
    for text, fault in (
        ("[" * 100_000, "nested too deep"),
        ('{"0": "car"}', "must be a JSON list of class names, got dict"),
        ('["car", ["dog"]]', r"entry 1 must be a class name, and each name another one, got \['dog'\]"),
        ('["car", {"name": "dog"}]', "entry 1 must be"),
        ('["car", null]', "entry 1 must be .* got None"),
        ('["car", ""]', "entry 1 must be"),
        ('["car", "dog", "car"]', "entry 2 must be .* got 'car'"),
        ("car, dog", "cannot be read as a list of class names"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=fault):
            read_class_names(path)
