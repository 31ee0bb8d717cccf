import pytest

from vidistill.data.class_names import require_classes
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
