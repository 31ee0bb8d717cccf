"""Super-resolution from recipe to page."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.super_resolution.test_score import moving
from vidistill.data.video.writer import VideoWriter
from vidistill.report.table import results_table
from vidistill.runs.build import build
from vidistill.runs.recipe import load_recipe
from vidistill.runs.run import execute
from vidistill.tasks.super_resolution import SuperResolution


@pytest.mark.filterwarnings("ignore")
def test_a_run_from_recipe_to_page(tmp_path: Path) -> None:
    for number in range(2):
        with VideoWriter(tmp_path / f"{number}.avi", fps=25) as writer:
            for image in moving(5, number).frames:
                writer.write(np.ascontiguousarray(image))
    source = f"{{name: high_resolution, root: {tmp_path}, scale: 2}}"
    (tmp_path / "recipe.yaml").write_text(f"""
task: {{name: super_resolution, scale: 2}}
teacher: {{name: vespcn, options: {{channels: 4, feature_channels: 4}}}}
student: {{name: vsrnet, options: {{window: 1, channels: 4, feature_channels: 4}}}}
method: {{name: space_time}}
data: {{train: [{source}], evaluate: [{source}], clip: {{num_frames: 2, window: 3, patch: 8}}}}
optim: {{name: adamw, steps: 2, batch_size: 2, num_workers: 0}}
out: {tmp_path / "run"}
""")
    results = execute(build(load_recipe(tmp_path / "recipe.yaml")))
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert "PSNR, dB" in results_table(results, SuperResolution.metrics)
    assert set(results["baselines"]) == {"bicubic"}
    assert results["student"]["frames_per_second"] > 0
    assert results["student"]["metrics"]["num_scored"] == 10
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Crops</h2>" in page
    assert 'class="slider"' in page
    assert "<script" not in page
    assert (tmp_path / "run" / "side_by_side.mp4").stat().st_size > 0
    unscored = execute(build(load_recipe(tmp_path / "recipe.yaml", ["data.evaluate=[]"])))
    assert unscored["student"]["metrics"] is None
