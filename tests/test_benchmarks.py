"""Benchmarks: what they import and ask of the program; super-resolution's tables on tiny networks and a tiny Vid4."""

import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from benchmarks import fuzz, memory_cells, vid4_table
from PIL import Image as PillowImage

from vidistill.cli import app
from vidistill.errors import UserError
from vidistill.models import build_network
from vidistill.ops.clip_view import WindowView
from vidistill.runs.recipe import load_recipe
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.students.windows import LookAhead
from vidistill.tasks.super_resolution import SuperResolution

ROOT = Path(__file__).parent.parent


def save(folder: Path, seed: int, **options) -> None:
    options = {"window": 3, "channels": 4, "feature_channels": 4, **options}
    torch.manual_seed(seed)
    network = build_network("vsrnet", options={"scale": 4, **options})
    spec = {"library": "vidistill", "name": "vsrnet", "options": {"scale": 4, **options}}
    task = SuperResolution(scale=4)
    card = Card(network=spec, task=task, view=WindowView(options["window"]), normalisation=task.normalisation)
    save_student(folder / "student.safetensors", LookAhead(network.eval(), card))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, clip in enumerate(("calendar", "city")):
        (tmp_path / "vid4" / "GT" / clip).mkdir(parents=True)
        for index in range(5):
            image = np.random.default_rng(10 * number + index).integers(0, 256, (48, 56, 3), dtype=np.uint8)
            PillowImage.fromarray(image).save(tmp_path / "vid4" / "GT" / clip / f"{index:08d}.png")
    save(tmp_path / "vid4_edvr", 9, window=5)
    for seed in (0, 1):
        save(tmp_path / f"vid4_tiny_none_{seed}", seed)
        save(tmp_path / f"vid4_tiny_both_{seed}", 5 + seed)
    (tmp_path / "vid4_tiny_both_2").mkdir()  # not finished
    return tmp_path


def table(folder: Path, monkeypatch: pytest.MonkeyPatch, *runs: str) -> dict:
    options = ["--data", folder / "vid4", "--teacher", folder / "vid4_edvr", "--out", folder / "vid4.json"]
    monkeypatch.setattr(sys, "argv", ["vid4_table.py", *map(str, options), *(str(folder / run) for run in runs)])
    vid4_table.main()
    return json.loads((folder / "vid4.json").read_text())


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """Rows of the first table by their first two cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {(row[0], row[1]): row[2:] for row in rows if len(row) == 9}


def test_tables_of_super_resolution_runs(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(vid4_table, "SIZE", (12, 14))
    first = table(folder, monkeypatch, "vid4_tiny_none_0", "vid4_tiny_both_0")
    text = capsys.readouterr().out
    none, both = (first["scores"][f"vid4_tiny_{kind}_0"] for kind in ("none", "both"))
    row = cells(text)["tiny", "both"]
    assert row == [
        "1", f"{both['psnr']:.3f}", f"{both['ssim']:.4f}", f"{both['by_clip']['calendar']['psnr']:.3f}",
        f"{both['by_clip']['city']['psnr']:.3f}", f"{both['warped_difference']:.3f}",
        f"{both['psnr'] - none['psnr']:.3f}",
    ]  # fmt: skip
    assert cells(text)["tiny", "none"][-1] == ""
    assert set(first["costs"]) == {"bicubic", "vid4_edvr", "tiny"}
    assert "14×12 → 56×48" in text

    scored = []
    evaluate = vid4_table.evaluate
    monkeypatch.setattr(
        vid4_table, "evaluate", lambda models, *a, **k: scored.extend(models) or evaluate(models, *a, **k)
    )
    everything = [f"vid4_tiny_{kind}_{seed}" for kind in ("none", "both") for seed in range(3)]
    later = table(folder, monkeypatch, *everything)
    assert scored == ["vid4_tiny_none_1", "vid4_tiny_both_1"], "what was scored is kept, what is not finished left out"
    assert later["costs"] == first["costs"]
    assert later["scores"] | first["scores"] == later["scores"]
    psnr = {name: entry["psnr"] for name, entry in later["scores"].items()}
    gains = [psnr[f"vid4_tiny_both_{seed}"] - psnr[f"vid4_tiny_none_{seed}"] for seed in (0, 1)]
    row = cells(capsys.readouterr().out)["tiny", "both"]
    assert (row[0], row[-1]) == ("2", f"{np.mean(gains):.3f} ± {max(gains) - min(gains):.3f}")

    save(folder / "vid4_tiny_none_0", 20)
    table(folder, monkeypatch, *everything)
    assert scored[2:] == ["vid4_tiny_none_0"], "trained anew"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_program_finds_what_it_imports(path: Path) -> None:
    assert callable(runpy.run_path(str(path), run_name=path.stem)["main"])


def commands_of(script: str, folder: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """What a script asks of the program, in a folder of its own; a stand-in takes the program's place."""
    program = folder / "vidistill"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> commands\n')
    program.chmod(0o755)
    (folder / "commands").unlink(missing_ok=True)
    search = {"PATH": f"{folder}:{os.environ['PATH']}", **environment}
    subprocess.run([ROOT / "benchmarks" / script, *arguments], cwd=folder, env=search, check=True)
    return [command.splitlines() for command in (folder / "commands").read_text().removesuffix("\n\n").split("\n\n")]


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "benchmarks").glob("*.sh")))
def test_every_script_asks_what_the_program_knows(script: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for verb, *arguments in commands_of(script, tmp_path, *([] if script == "vid4.sh" else ["7"])):
        if verb == "train":
            recipe = load_recipe(ROOT / arguments[0], arguments[1:])
            assert str(recipe.out).startswith("runs/")
        else:
            command = typer.main.get_command(app).commands[verb]
            command.make_context(verb, list(arguments))  # refuses an unknown option
            assert verb in ("convert", "label")


def test_only_what_is_not_there_is_trained(tmp_path: Path) -> None:
    (tmp_path / "runs" / "vid4_vsrnet_none_1").mkdir(parents=True)
    (tmp_path / "runs" / "vid4_vsrnet_none_1" / "results.json").touch()

    def commands(**environment: str) -> list[str]:
        return [" ".join(c) for c in commands_of("vid4.sh", tmp_path, "optim.steps=7", **environment)]

    teacher, *students = commands(TEACHER="optim.steps=9 seed=3")
    assert teacher == "train recipes/vid4_edvr.yaml optim.steps=9 seed=3"
    assert len(students) == 3 * (3 * 4 + 3) + 2 - 1
    assert all("data.evaluate=[]" in line and line.endswith("optim.steps=7") for line in students)
    assert not any("vid4_vsrnet_none_1" in line for line in students)
    (tmp_path / "runs" / "vid4_edvr").mkdir()
    (tmp_path / "runs" / "vid4_edvr" / "student.safetensors").touch()
    assert commands() == students


def write_log(run: Path, steps: int, frozen_from: int | None = None, **names: float) -> None:
    run.mkdir()
    lines = (
        {"step": step, **names, "cell_frozen": float(frozen_from is not None and step >= frozen_from)}
        for step in range(1, steps + 1)
    )
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def picture_cells(folder: Path, monkeypatch: pytest.MonkeyPatch, *runs: str) -> None:
    arguments = ["memory_cells.py", "--out", str(folder / "cells.png"), *(str(folder / run) for run in runs)]
    monkeypatch.setattr(sys, "argv", arguments)
    memory_cells.main()


def test_memory_cells_of_runs_of_unequal_length(tmp_path: Path, monkeypatch, capsys) -> None:
    write_log(tmp_path / "vid4_vespcn_both_0", 30, time_gap=1e-3, cell_variance=1e-4)
    write_log(tmp_path / "vid4_vespcn_frozen_0", 20, frozen_from=7, time_gap=1e-4, cell_variance=1e-3)
    picture_cells(tmp_path, monkeypatch, "vid4_vespcn_both_0", "vid4_vespcn_frozen_0")
    assert capsys.readouterr().out.splitlines() == ["both 0: it did not freeze", "frozen 0: frozen from step 7 on"]
    with PillowImage.open(tmp_path / "cells.png") as picture:
        assert picture.size[0] > 2 * picture.size[1]


def test_memory_cells_of_a_run_without_one(tmp_path: Path, monkeypatch) -> None:
    write_log(tmp_path / "vid4_vespcn_space_0", 5, space=1e-3)
    with pytest.raises(SystemExit, match=r"vid4_vespcn_space_0: logged no memory cell"):
        picture_cells(tmp_path, monkeypatch, "vid4_vespcn_space_0")


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_few_mutants_of_every_kind_end_in_sentences(kind: str) -> None:
    counts = fuzz.fuzz(kind, mutants=4, seed=0)
    assert (counts["fine"] + counts["sentence"], sum(counts.values())) == (4, 4)


def test_fuzzing_tells_how_a_mutant_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(read) -> str:
        return fuzz.read_apart(read, tmp_path).what

    def sentence(folder: Path) -> None:
        raise UserError("one sentence")

    monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert ends(lambda folder: None) == "fine"
    assert ends(sentence) == "sentence"
    assert ends(lambda folder: [][0]) == "traceback"
    assert ends(lambda folder: os.kill(os.getpid(), signal.SIGTERM)) == "traceback"
    assert ends(lambda folder: sum(1 for _ in itertools.count())) == "hang"
    assert ends(lambda folder: bytearray(2**40)) == "memory"


def test_mutants_are_decided_by_their_numbers(tmp_path: Path) -> None:
    good = tmp_path / "good"
    (good / "one").mkdir(parents=True)
    (good / "one" / "a.json").write_text('{"name": "x", "values": [1, 2, 3]}')
    texts = []
    for place, number in (("a", 1), ("b", 1), ("c", 2)):
        fuzz.Mutant("labels", 5, number).planned().make(good, tmp_path / place)
        texts.append((tmp_path / place / "a.json").read_bytes())
    assert texts[0] == texts[1] != texts[2]
