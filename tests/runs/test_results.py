"""How what a run measures is kept."""

from vidistill.data.clip import VideoDataset
from vidistill.runs.results import by_name


def test_data_sets_of_equal_names_are_numbered() -> None:
    datasets = [VideoDataset(name, []) for name in ("clips", "other", "clips", "clips_2", "clips")]
    assert by_name(datasets, [1, 2, 3, 4, 5]) == {
        "clips": 1, "other": 2, "clips_2": 3, "clips_2_2": 4, "clips_3": 5,
    }  # fmt: skip
    assert by_name([], []) == {}
