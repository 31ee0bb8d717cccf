"""What the command line's words mean, and how it prints what it found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidistill.errors import UserError

if TYPE_CHECKING:
    import torch

    from vidistill.data.video import VideoReader


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Prints a run's results and where its files lie."""
    from vidistill.report.table import results_table

    print(results_table(results))
    for title, name in (("student", "student.safetensors"), ("results", "results.json"), ("page", "report.html")):
        print(f"{title + ':':8} {folder / name}")


def print_values(values: dict[str, Any]) -> None:
    """Prints metrics a line each; matrices are left to JSON."""
    for name, value in values.items():
        if isinstance(value, list) and any(isinstance(v, list) for v in value):
            continue  # a matrix
        if isinstance(value, list):
            value = " ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in value)
        print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")


def frame_count(reader: "VideoReader") -> int | None:
    """The number of frames; None of a pipe or a live stream, which has none."""
    try:
        return reader.num_frames
    except UserError:
        return None


def recipe_file(path: Path) -> Path:
    """The recipe, also of a run folder."""
    return path / "recipe.yaml" if path.is_dir() else path


def student_file(path: Path) -> Path:
    """The student, also of a run folder."""
    return path / "student.safetensors" if path.is_dir() else path


def data_source(text: str) -> dict[str, Any]:
    """A data source from `name,key=value,…`."""
    import yaml

    name, *options = text.split(",")
    source: dict[str, Any] = {"name": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"'{option}' in '{text}' is not key=value")
        source[key] = yaml.safe_load(value)
    return source


def frame_size(text: str) -> tuple[int, int]:
    """(height, width) from WIDTHxHEIGHT."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"--size {text}: give WIDTHxHEIGHT, as in 640x360")
    return int(height), int(width)


def size_in_words(size: Sequence[int]) -> str:
    """Of a frame (height, width), or of a clip (frames, 3, height, width)."""
    *clip, height, width = size
    return f"clips of {clip[0]} frames, {width}x{height}" if clip else f"{width}x{height}"


def device_named(name: str) -> "torch.device":
    """The device by its name. Errors: UserError where it is not here."""
    import torch

    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: torch cannot use it here ({reason}); choose cpu, cuda or mps") from error


def choice(name: str, choices: dict[str, Any], where: str) -> Any:
    """What the name stands for. Errors: UserError with the nearest names."""
    from vidistill.config import choose

    return choose(choices, name, where=where)
