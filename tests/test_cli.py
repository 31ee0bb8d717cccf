"""The command line as a person uses it: a whole run on made video, and every mistake one sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.command_line import run
from tests.networks import TinySegmenter
from vidistill import cli
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.video.reader import VideoReader
from vidistill.data.video.writer import VideoWriter
from vidistill.files import occupied
from vidistill.methods.delta import Delta
from vidistill.models import MODELS
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.tasks.segmentation import Segmentation


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a clip, a labelled set in CamVid's layout, a recipe, and its finished run."""
    folder = tmp_path_factory.mktemp("place")
    sequence = synthetic(num_sequences=1, num_frames=8, size=(64, 96), num_classes=4, seed=1).sequences[0]
    with VideoWriter(folder / "clip.mp4", fps=10) as writer:
        for image in sequence.images():
            writer.write(image)
    for part in ("val", "valannot"):
        (folder / "set" / part).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(sequence.image(i)).save(folder / "set" / "val" / f"drive_{i}.png")
        Image.fromarray(sequence.labels(i)).save(folder / "set" / "valannot" / f"drive_{i}.png")
    recipe = {
        "task": {"name": "segmentation", "num_classes": 11},
        "teacher": {"name": "ddrnet_23_slim"},
        "student": {"from": "teacher"},
        "method": {"name": "delta", "key_frame_interval": 3},
        "data": {
            "train": [{"name": "camvid", "root": str(folder / "set"), "split": "val"}],
            "evaluate": [
                {"name": "camvid", "root": str(folder / "set"), "split": "val"},
                {"name": "videos", "root": str(folder / "clip.mp4"), "frames": [4, 8]},
            ],
            "clip": {"max_gap": 3},
        },
        "optim": {"learning_rate": 1.0e-6, "steps": 2, "batch_size": 2, "num_workers": 0},
        "out": str(folder / "run"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run("train", str(folder / "recipe.yaml")) == 0
    return folder


def test_a_run_folder_is_whole(place: Path) -> None:
    names = {path.name for path in (place / "run").iterdir()}
    assert {
        "recipe.yaml",
        "metrics.jsonl",
        "student.safetensors",
        "results.json",
        "report.html",
        "side_by_side.mp4",
    } <= names
    assert not [name for name in names if name.startswith(".")], "nothing half-written is left"
    results = json.loads((place / "run" / "results.json").read_text())
    for who in ("teacher", "student"):
        entry = results[who]
        assert set(entry["gmacs"]) == {"key", "delta", "amortised", "amortised_deployed"}
        assert entry["latency_ms"]["key"].keys() == {"p50", "p95", "p99"}
        assert entry["metrics"]["num_scored"] == 6
        assert entry["parameters"] > 5e6
        assert entry["more_metrics"]["videos"]["miou"] is None
    assert len(results["student"]["metrics"]["miou_by_distance"]) == 3
    assert results["student"]["metrics"]["agreement_by_distance"][0] > 0.9, "hardly trained"
    assert results["teacher"]["metrics"]["agreement"] == 1.0
    assert results["baselines"]["hold"]["metrics"]["miou_by_distance"][0] == results["teacher"]["metrics"]["miou"]
    assert results["plan"]["share"] > 0.9
    with VideoReader(place / "run" / "side_by_side.mp4") as reader:
        assert (reader.num_frames, reader.width, reader.height) == (6, 192, 128)


def test_a_finished_run_is_scored_again_without_training(place: Path, capsys) -> None:
    lines = (place / "run" / "metrics.jsonl").read_text()
    assert run("train", str(place / "run")) == 0
    assert (place / "run" / "metrics.jsonl").read_text() == lines


def test_two_runs_at_once_do_not_share_a_folder(place: Path, capsys) -> None:
    lines = (place / "run" / "metrics.jsonl").read_text()
    with occupied(place / "run"):
        assert run("train", str(place / "run")) == 1
    assert "is in use by another run" in capsys.readouterr().err
    assert (place / "run" / "metrics.jsonl").read_text() == lines
    with occupied(place / "run"):
        pass  # free again


def test_streams_to_every_kind_of_output(place: Path, capsys) -> None:
    student, clip = str(place / "run"), str(place / "clip.mp4")
    assert run("stream", student, clip, "--out", str(place / "out.mp4")) == 0
    with VideoReader(place / "out.mp4") as reader:
        assert reader.num_frames == 8
    assert run("stream", student, clip, "--out", str(place / "masks")) == 0
    masks = sorted((place / "masks").iterdir())
    assert len(masks) == 8
    assert np.asarray(Image.open(masks[0])).shape == (64, 96)
    capsys.readouterr()
    assert run("stream", student, clip, "--out", "-", "--key-frames", "4") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key_frame"] for line in lines] == [True, False, False, False] * 2
    assert sum(lines[0]["shares"].values()) == pytest.approx(1, abs=1e-4)


def test_a_stream_cut_in_two_writes_the_same_masks(place: Path) -> None:
    halves = []
    for name, part in (("a", slice(0, 4)), ("b", slice(4, 8))):
        (place / name).mkdir()
        with VideoReader(place / "clip.mp4") as reader:
            for frame in list(reader)[part]:
                Image.fromarray(frame.image).save(place / name / f"{frame.index:03d}.png")
        halves.append(str(place / name))
    (place / "whole").mkdir()
    for folder in halves:
        for path in Path(folder).iterdir():
            (place / "whole" / path.name).write_bytes(path.read_bytes())
    state = str(place / "state.safetensors")
    student = str(place / "run")
    assert run("stream", student, str(place / "whole"), "--out", str(place / "masks_whole")) == 0
    assert run("stream", student, halves[0], "--out", str(place / "masks_a"), "--save-state", state) == 0
    assert run("stream", student, halves[1], "--out", str(place / "masks_b"), "--load-state", state) == 0
    for path in sorted((place / "masks_whole").iterdir()):
        half = place / ("masks_a" if int(path.stem) < 4 else "masks_b")
        assert path.read_bytes() == (half / path.name).read_bytes()


def test_evaluate_and_profile_print_json(place: Path, capsys) -> None:
    assert run("evaluate", str(place / "run"), "--data", f"camvid,root={place / 'set'},split=val", "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_scored"] == 6
    assert run("profile", str(place / "run"), "--size", "64x64", "--json") == 0
    costs = json.loads(capsys.readouterr().out)
    assert costs["student"]["gmacs"]["delta"] < costs["teacher"]["gmacs"]["key"] / 3


def test_what_was_exported_is_a_student_like_any_other(place: Path, monkeypatch, capsys) -> None:
    """A small one: exports of large networks take long."""
    monkeypatch.setitem(MODELS, "tiny_segmenter", TinySegmenter)
    network, method = TinySegmenter(num_classes=4).eval(), Delta(key_frame_interval=3)
    spec = {"name": "tiny_segmenter", "library": "vidistill", "options": {"num_classes": 4}}
    card = Card(network=spec, task=Segmentation(num_classes=4), key_frame_interval=3)
    student, exported = str(place / "tiny.safetensors"), str(place / "exported")
    save_student(student, method.finish(method.prepare(network, torch.zeros(1, 3, 64, 96), card=card)))
    assert run("profile", student, "--size", "96x64", "--runtime", "onnx") == 0
    assert "| teacher | student |" in re.sub(" +", " ", capsys.readouterr().out)
    assert run("export", student, "--out", exported, "--size", "96x64") == 0
    assert "outputs equal torch's within" in capsys.readouterr().out
    scores, lines = [], []
    for path in (student, exported):
        assert run("evaluate", path, "--data", "synthetic,num_sequences=1,num_frames=4,size=[64,96]", "--json") == 0
        scores.append(json.loads(capsys.readouterr().out))
        assert run("stream", path, str(place / "clip.mp4"), "--out", "-") == 0
        lines.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for name in ("miou", "miou_by_distance", "flip_rate", "temporal_consistency"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-3)
    assert [line["key_frame"] for line in lines[1]] == [True, False, False] * 2 + [True, False]
    for ours, theirs in zip(*lines, strict=True):
        assert ours["shares"] == pytest.approx(theirs["shares"], abs=1e-3)
    assert run("profile", exported, "--size", "96x64", "--json") == 0
    costs = json.loads(capsys.readouterr().out)["student"]
    assert (costs["gmacs"], costs["precision"], costs["size"]) == (None, "float32", [64, 96])
    assert run("profile", exported, "--size", "96x64", "--runtime", "eager") == 1
    assert "was exported for runtime onnx in float32, got runtime eager" in capsys.readouterr().err


def test_a_student_is_scored_as_it_will_run(place: Path, capsys) -> None:
    source = f"camvid,root={place / 'set'},split=val"
    how = ("--precision", "bfloat16", "--threads", "1", "--teacher", str(place / "run"), "--json")
    assert run("evaluate", str(place / "run"), "--data", source, *how) == 0
    assert json.loads(capsys.readouterr().out)["agreement_by_distance"][0] == 1.0, "both run in one precision"


def test_check_and_list(place: Path, capsys) -> None:
    assert run("check", str(place / "recipe.yaml")) == 0
    assert "all is well" in capsys.readouterr().out
    (place / "broken").mkdir()
    (place / "broken" / "a.mp4").write_bytes(b"no video")
    (place / "broken" / "b.mp4").write_bytes(b"")
    assert run("check", f"videos,root={place / 'broken'}") == 1
    shown = capsys.readouterr()
    assert "a.mp4" in shown.out
    assert "b.mp4" in shown.out
    assert "2 problems" in shown.err
    assert run("list") == 0
    assert "ddrnet_23_slim" in capsys.readouterr().out


MISTAKES = [
    (["train", "{}/missing.yaml"], "cannot be read"),
    (["train", "{}/recipe.yaml", "optim.stepps=3"], "did you mean steps"),
    (["train", "{}/recipe.yaml", "method.student.reducton=3"], "student.reducton"),
    (["train", "{}/recipe.yaml", "method.name=detla"], "did you mean delta"),
    (["train", "{}/recipe.yaml", "method.leave=[stage9.*]"], "matches nothing"),
    (
        ["train", "{}/recipe.yaml", "method.student.reduction=2"],
        "method.student.reduction is 4, and this recipe's is 2; choose",
    ),
    (["train", "{}/recipe.yaml", "seed=3"], "holds a run whose seed is 0, and this recipe's is 3; choose another out="),
    (["train", "{}/recipe.yaml", "task.num_classes=5"], "has 11 classes"),
    (["train", "{}/recipe.yaml", "data.train=[]"], "no frame to end a clip"),
    (["train", "{}/recipe.yaml", "out={}/clip.mp4/run"], "cannot be written"),
    (["train", "{}/recipe.yaml", "teacher.checkpoint={}/clip.mp4", "teacher.name=null"], "not a safetensors file"),
    (["train", "{}/recipe.yaml", "optim.name=adm"], "adamw"),
    (["stream", "{}/run", "{}/missing.mp4", "--out", "{}/x.mp4"], "missing.mp4"),
    (["stream", "{}/run", "{}/recipe.yaml", "--out", "{}/x.mp4"], "recipe.yaml"),
    (["stream", "{}/run", "{}/clip.mp4", "--out", "{}/x.gif"], "x.gif"),
    (["stream", "{}/run", "{}/clip.mp4", "--out", "{}/set"], "already exists"),
    (["stream", "{}/run", "{}/clip.mp4", "--out", "{}/x.mp4", "--key-frames", "often"], "often"),
    (["stream", "{}/clip.mp4", "{}/clip.mp4", "--out", "{}/x.mp4"], "not a safetensors file"),
    (["evaluate", "{}/run", "--data", "camvid,root={}/nowhere"], "folder not found"),
    (["evaluate", "{}/run", "--data", "camvd,root=x"], "did you mean camvid"),
    (["profile", "{}/run", "--size", "large"], "WIDTHxHEIGHT"),
    (["profile", "{}/run", "--runtime", "tensorrt"], "eager, compiled, onnx"),
    (["profile", "{}/run", "--runtime", "onnx", "--precision", "bfloat16"], "must be one of float32, got bfloat16"),
    (["profile", "{}/run", "--device", "gpu"], "--device gpu: torch cannot use it here"),
    (["stream", "{}/run", "{}/clip.mp4", "--out", "{}/x.mp4", "--device", "gpu"], "choose cpu, cuda or mps"),
    (["check", "videos,root={}/empty"], "empty"),
    (["check", "synthetic,size=[32,48"], "'size=[32,48': the value is not valid YAML"),
    (["check", "synthetic,size=[32"], "'size=[32': the value is not valid YAML"),
    (["check", "synthetic,sise=[32,48]"], "did you mean size"),
    (["train", "{}/recipe.yaml", "measure.runtime=onx"], "measure.runtime: unknown name 'onx'; did you mean onnx"),
    (["export", "{}/run", "--runtime", "eager", "--out", "{}/x"], "runtime eager has no files to export; choose onnx"),
    (["export", "{}/run", "--runtime", "onx", "--out", "{}/x"], "--runtime: unknown name 'onx'; did you mean onnx"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), MISTAKES, ids=lambda value: value[-1][-30:] if isinstance(value, list) else ""
)
def test_every_mistake_is_one_sentence(place: Path, capsys, arguments, sentence: str) -> None:
    (place / "empty").mkdir(exist_ok=True)
    before = {path.name for path in place.iterdir()}
    assert run(*[argument.replace("{}", str(place)) for argument in arguments]) == 1
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("error: ")
    assert len(shown.strip().splitlines()) == 1
    assert {path.name for path in place.iterdir()} == before, "nothing half-written is left"


def test_a_truncated_video_keeps_the_earlier_output(place: Path, capsys) -> None:
    whole = (place / "out.mp4").read_bytes() if (place / "out.mp4").exists() else b"earlier"
    (place / "out.mp4").write_bytes(whole)
    clip = (place / "clip.mp4").read_bytes()
    (place / "truncated").mkdir(exist_ok=True)
    (place / "truncated" / "clip.mp4").write_bytes(clip[: len(clip) // 2])
    assert (
        run("stream", str(place / "run"), str(place / "truncated" / "clip.mp4"), "--out", str(place / "out.mp4")) == 1
    )
    assert "clip.mp4" in capsys.readouterr().err
    assert (place / "out.mp4").read_bytes() == whole


def test_ctrl_c_is_one_sentence(monkeypatch, capsys) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    assert run("list") == 130
    assert "last checkpoint" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_av() -> None:
    program = """
import sys
sys.argv = ["vidistill", "--help"]
try:
    from vidistill.cli import main
    main()
except SystemExit:
    pass
print([name for name in ("torch", "av", "cv2", "pydantic", "numpy", "yaml") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    for verb in ("demo", "train", "evaluate", "stream", "profile", "export", "convert", "check", "list"):
        assert verb in done.stdout
