"""Scores against plain loops over frames, and a run from recipe to page."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.networks import TinyWindows
from tests.tasks.test_super_resolution_samples import Frames
from vidistill.data.clip import VideoDataset
from vidistill.data.sequences.high_resolution import HighResolutionSequence
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.clip_view import WindowView
from vidistill.ops.flow import Correspondence
from vidistill.ops.image_quality import luma, psnr, ssim
from vidistill.ops.normalise import Normalisation
from vidistill.ops.resize import degrade_bicubic, resize_bicubic
from vidistill.report.table import results_table
from vidistill.runs.build import build
from vidistill.runs.recipe import load_recipe
from vidistill.runs.run import execute
from vidistill.scoring import SCORINGS
from vidistill.scoring.frames import Setting
from vidistill.scoring.window_results import bicubic_of
from vidistill.scoring.windows import evaluate_super_resolution, restored, warped_difference
from vidistill.stream_outputs import LOOKS
from vidistill.students.windows import LookAhead
from vidistill.tasks import TASKS
from vidistill.tasks.super_resolution.task import SuperResolution


def moving(num_frames: int, seed: int, size: tuple[int, int] = (34, 47)) -> Frames:
    """A smooth texture that slides by two pixels a frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (size[1] + 2 * num_frames, size[0]), interpolation=cv2.INTER_CUBIC)
    return Frames(np.stack([texture[:, 2 * t : 2 * t + size[1]] for t in range(num_frames)]), name=f"clip{seed}")


def setting_of(**options) -> Setting:
    task = SuperResolution(scale=2, **options)
    return Setting(task, 0, task.normalisation)


@pytest.mark.parametrize(
    ("channels", "mean"), [("y", 0.0), ("rgb", 0.0), ("y", 0.5)], ids=["y", "rgb", "beside a network of other values"]
)
def test_bicubic_scores_are_those_of_a_plain_loop(channels: str, mean: float) -> None:
    setting = replace(setting_of(channels=channels), normalisation=Normalisation((mean,) * 3, (1.0 - mean,) * 3))
    sequences = [moving(3, 0), moving(5, 1)]
    found = evaluate_super_resolution({"bicubic": bicubic_of(setting)}, sequences, setting, interval=1)["bicubic"]
    clips = []
    for sequence in sequences:
        scores = []
        for image in sequence.frames:
            truth = image[:34, :46]
            low = degrade_bicubic(torch.from_numpy(truth.copy()).movedim(-1, 0), 2)
            large = resize_bicubic(low.float(), 2).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy()
            pair = (luma(large), luma(truth)) if channels == "y" else (large, truth)
            scores.append((psnr(*pair), ssim(*pair)))
        clips.append(np.mean(scores, axis=0))
    expected = np.mean(clips, axis=0)
    assert found["psnr"] == pytest.approx(expected[0], abs=0.02)
    assert found["ssim"] == pytest.approx(expected[1], abs=1e-3)
    assert found["by_clip"]["clip1"]["psnr"] == pytest.approx(clips[1][0], abs=0.02)
    assert (found["num_scored"], found["agreement_psnr"]) == (8, None)
    assert "mean over the frames of a clip, then over 2 clips, 8 frames" in found["protocol"]


def test_models_of_different_windows_are_scored_on_the_same_frames() -> None:
    setting = setting_of()
    models = {
        name: LookAhead(TinyWindows(window=window).eval(), WindowView(window))
        for name, window in (("student", 3), ("teacher", 5))
    }
    models["same"] = models["teacher"]
    found = evaluate_super_resolution(models, [moving(5, 0)], setting, interval=1)
    assert found["same"]["psnr"] == found["teacher"]["psnr"]
    assert found["same"]["agreement_psnr"] is None, "of equal frames it is infinite, which is no number"
    assert 10 < found["student"]["agreement_psnr"] < 100
    assert found["student"]["warped_difference"] > 0
    with pytest.raises(UserError, match="clip0: has 4 frames, expected at least the window of 5"):
        evaluate_super_resolution(models, [moving(4, 0)], setting, interval=1)
    with pytest.raises(UserError, match=r"clip0: has frames of 40×10 pixels; SSIM looks at squares of 11"):
        evaluate_super_resolution(models, [moving(5, 0, (10, 40))], setting, interval=1)


def test_frames_that_equal_the_truth_are_left_out_of_its_mean_alone() -> None:
    """Bicubic enlargement makes a grey frame what it was."""
    setting = setting_of()
    textured, grey = moving(3, 0, (34, 46)), np.full((34, 46, 3), 90, np.uint8)
    mixed = Frames(np.concatenate([textured.frames, grey[None]]), name="mixed")
    still = Frames(np.stack([grey, grey]), name="still")

    def scores(*sequences: Frames):
        return evaluate_super_resolution({"bicubic": bicubic_of(setting)}, sequences, setting, interval=1)["bicubic"]

    found, plain = scores(mixed, still), scores(textured)
    assert found["psnr"] == pytest.approx(plain["psnr"])
    assert found["ssim"] == pytest.approx(((3 * plain["ssim"] + 1) / 4 + 1) / 2)
    assert found["by_clip"]["still"]["psnr"] is None
    assert found["num_scored"] == 6
    assert found["protocol"].endswith("Left out of the mean PSNR to the truth: 3 frames that equal it.")
    assert "Left out" not in plain["protocol"]
    assert scores(still)["psnr"] is None


def test_videos_that_cannot_be_scored_are_refused_beforehand() -> None:
    setting, views = setting_of(), [WindowView(3), None, WindowView(5)]

    def check(*sequences) -> None:
        SCORINGS["super_resolution"].check(views, [VideoDataset("a", list(sequences))], setting)

    fine = moving(5, 0)
    check(fine, HighResolutionSequence(fine, 2))
    with pytest.raises(UserError, match="clip1: has 4 frames, expected at least the window of 5"):
        check(fine, moving(4, 1))
    with pytest.raises(UserError, match=r"clip1: has frames of 40×10 pixels; SSIM looks at squares of 11"):
        check(fine, moving(5, 1, (10, 40)))
    with pytest.raises(UserError, match="clip1: is read for ×4 and the task is ×2"):
        check(fine, HighResolutionSequence(moving(5, 1), 4))
    low = Frames(np.zeros((5, 17, 20, 3), np.uint8))
    with pytest.raises(UserError, match="clip1: the low-resolution frames are 20×17"):
        check(fine, HighResolutionSequence(moving(5, 1), 2, low))


def test_of_a_vimeo_septuplet_the_centre_frame_is_scored() -> None:
    setting = setting_of()
    septuplet = moving(7, 0)
    (found,) = evaluate_super_resolution(
        {"bicubic": bicubic_of(setting)}, [HighResolutionSequence(septuplet, 2, centre_only=True)], setting, interval=1
    ).values()
    centre = Frames(septuplet.frames[3:4])
    (expected,) = evaluate_super_resolution({"bicubic": bicubic_of(setting)}, [centre], setting, interval=1).values()
    assert (found["psnr"], found["ssim"]) == (expected["psnr"], expected["ssim"])
    assert (found["num_scored"], found["num_frames"], found["warped_difference"]) == (1, 7, None)
    assert "mean over the centre frames of a clip, then over 1 clips, 1 frames" in found["protocol"]


def test_the_centre_frame_alone_is_what_a_stream_makes_of_it() -> None:
    """A network without key frames runs once; one with some, on all that comes before."""
    setting, septuplet = setting_of(), HighResolutionSequence(moving(7, 0), 2, centre_only=True)
    method = Delta()
    inner = method.finish(method.prepare(TinyWindows().eval(), torch.zeros(1, 3, 3, 8, 10), view=WindowView(3)))
    networks = {"five": TinyWindows(window=5).eval(), "three": TinyWindows().eval(), "delta": inner.eval()}
    models = {n: LookAhead(network, WindowView(5 if n == "five" else 3)) for n, network in networks.items()}
    streamed = list(restored(models, septuplet, setting, interval=3))[3]
    runs: list[str] = []
    for name, network in networks.items():
        network.register_forward_hook(lambda *_, name=name: runs.append(name))
    found = evaluate_super_resolution(models, [septuplet], setting, interval=3)
    assert [runs.count(name) for name in networks] == [1, 1, 4]
    for name in models:
        assert found[name]["psnr"] == psnr(luma(streamed[name]), luma(streamed["truth"]))


def test_the_protocol_says_where_low_resolution_frames_were_stored() -> None:
    setting = setting_of()
    high = moving(2, 0, size=(34, 46))
    low = Frames(np.zeros((2, 17, 23, 3), np.uint8))
    stored = HighResolutionSequence(high, 2, low)
    (found,) = evaluate_super_resolution({"bicubic": bicubic_of(setting)}, [stored], setting, interval=1).values()
    assert found["protocol"].startswith("low-resolution frames as stored;")
    assert found["psnr"] == pytest.approx(np.mean([psnr(luma(i * 0), luma(i)) for i in high.frames]))


def test_warped_difference_by_hand() -> None:
    first = np.array([[10, 20, 30]], np.uint8)
    second = np.array([[0, 13, 20]], np.uint8)  # all moved right by one, the first gone
    motion = Correspondence(
        rows=np.zeros((1, 3), np.intp), columns=np.array([[1, 2, 2]]), visible=np.array([[True, True, False]])
    )
    assert warped_difference(first, second, motion) == pytest.approx(1.5)  # |10 − 13| and |20 − 20|


def test_every_task_is_scored_and_shown() -> None:
    assert set(SCORINGS) == set(TASKS) == set(LOOKS)


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
    assert "PSNR, dB" in results_table(results)
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
