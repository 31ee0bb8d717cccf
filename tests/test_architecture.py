"""Imports point one way: a unit imports only what stands to its right in this list, and siblings never meet."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "vidistill"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"cli_values"},
    {"demo", "sweep"},
    {"check", "run", "label"},
    {"build"},
    {"recipe"},
    {"train", "report", "scoring"},
    {"training_log", "stream_outputs"},
    {"stream", "export"},
    {"checkpoint", "key_frames", "onnx_operators"},
    {"distill"},
    {"tasks"},
    {"models"},
    {"data"},
    {"profile", "ops", "onnx_runtime"},
    {"config"},
    {"progress"},
    {"files"},
    {"errors"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
DOORS = ("distill", "tasks", "models", "data")
# the files of a package that its methods, tasks, networks and data sets share
SHARED = {
    "distill": {
        "stateful",
        "card",
        "teacher",
        "norms",
        "norm_pairs",
        "delta",
        "window",
        "frame_by_frame",
        "look_ahead",
        "taps",
        "stages",
        "stage_method",
        "supervised",
        "teacher_cache",
        "processes",
        "conv_lstm",
        "space_time_losses",
    },
    "tasks": {"outputs", "detection_losses"},
    "models": {
        "libraries",
        "layers",
        "clips",
        "clip_adapters",
        "temporal_shift",
        "detectors",
        "anchor_detectors",
        "region_detectors",
        "upscaling",
    },
    "data": {
        "clip",
        "class_names",
        "boxes",
        "boxed_clips",
        "coco_contents",
        "coco_classes",
        "wrapped",
        "frame_files",
        "tables",
        "images",
        "videos",
        "high_resolution",
        "patches",
        "degradation",
        "super_resolution_clips",
        "sound",
        "classified",
        "training",
        "resized",
        "video",
        "sampling",
        "augment",
        "camera_motion",
        "_colour",
        "_packets",
        "_video_file",
    },
}
# what a file refines rather than stands beside: Supervised on another network or with further losses
REFINED = {
    "synthetic_actions": ("synthetic",),
    "labelled_videos": ("videos",),
}


def imports(path: Path) -> list[str]:
    """The vidistill modules that a file imports, dotted, without the package's own name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidistill"):
            module = (node.module or "").removeprefix("vidistill").removeprefix(".")
            found += [module] if module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [
                alias.name.removeprefix("vidistill.") for alias in node.names if alias.name.startswith("vidistill.")
            ]
    return [name for name in found if name and not name.startswith("__")]


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def test_every_unit_has_a_place() -> None:
    units = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in modules()}
    assert units == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_right(path: Path) -> None:
    unit = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports(path):
        other = name.split(".")[0]
        assert other == unit or LEVEL[other] > LEVEL[unit], f"{unit} imports {other}"


@pytest.mark.parametrize("package", DOORS)
def test_siblings_share_only_what_is_shared(package: str) -> None:
    for path in (SOURCE / package).glob("*.py"):
        if path.stem == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == package:
                assert len(parts) > 1, f"{path.stem} imports its own door"
                assert parts[1:3] != ["delta", "method"], f"{path.stem} imports a sibling method"
                assert parts[1] in SHARED[package] or parts[1] in REFINED.get(path.stem, ())
