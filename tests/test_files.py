"""What may be written where, and what is left when it cannot be."""

import errno
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from vidistill.errors import UserError
from vidistill.files import GrowingText, atomic_path, check_name, json_text, new_folder, refuse_inputs
from vidistill.training_log import TrainingLog, read_log


def test_json_is_strict() -> None:
    values = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (1, None, "NaN")}
    text = json_text(values)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": None, "b": [1.5, None, {"c": None}], "d": [1, None, "NaN"]}


def test_a_failed_write_leaves_neither_a_part_nor_a_new_folder(tmp_path: Path) -> None:
    for whole in (atomic_path, new_folder):
        with pytest.raises(RuntimeError), whole(tmp_path / "a" / "b" / "c"):
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []


def test_names_of_255_bytes_are_written_and_longer_ones_are_refused(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".txt", "é" * 120 + ".txt", "line\nbreak.txt", "y" * 255):
        with atomic_path(tmp_path / name) as part:
            part.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
    for name in ("x" * 252 + ".txt", "nul\0.txt"):
        with pytest.raises(UserError, match=r"at most 255|NUL"):
            check_name(tmp_path / name)
        with pytest.raises(UserError, match=r"at most 255|NUL"), atomic_path(tmp_path / name):
            pass


def test_a_folder_of_that_name_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="Is a directory"), atomic_path(tmp_path / "out"):
        pytest.fail("the work has begun")


def test_text_files_may_lie_in_an_input_folder_and_pictures_may_not(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    refuse_inputs(tmp_path / "frames" / "boxes.json", [tmp_path / "frames", "rtsp://camera/1", None])
    with pytest.raises(UserError, match="lies in an input"):
        refuse_inputs(tmp_path / "frames" / "masks", [tmp_path / "frames"])


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    """In a process whose files may hold 100 bytes: two lines of 40 do, the third does not."""
    program = f"""
import resource
from pathlib import Path
from vidistill.errors import UserError
from vidistill.files import GrowingText
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with GrowingText(Path({str(tmp_path / "out")!r})) as file:
        for number in range(3):
            file.write(str(number) * 39)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert (tmp_path / "out").read_text() == "0" * 39 + "\n" + "1" * 39 + "\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_empty_text_is_a_file(tmp_path: Path) -> None:
    with GrowingText(tmp_path / "out"):
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == b""


def test_a_full_disk_in_the_log_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrainingLog(tmp_path, 0)
    log.write(1, {"loss": math.nan})

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.write("")

    log._file.close()
    monkeypatch.setattr(log, "_file", Full())
    with pytest.raises(UserError, match=r"metrics\.jsonl: the disk is full"), log:
        log.write(2, {"loss": 1.0})
    assert [line["loss"] for line in read_log(tmp_path / "metrics.jsonl")] == [None]
