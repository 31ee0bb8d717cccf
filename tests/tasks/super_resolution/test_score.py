"""Scores against plain loops over frames."""

import cv2
import numpy as np
import pytest
import torch

from tests.networks import TinyWindows
from tests.tasks.super_resolution.test_samples import Frames
from vidistill.data.sequences.high_resolution import HighResolutionSequence
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.clip_view import WindowView
from vidistill.ops.flow import Correspondence
from vidistill.ops.image_quality import luma, psnr, ssim
from vidistill.ops.normalise import Normalisation
from vidistill.ops.resize import degrade_bicubic, resize_bicubic
from vidistill.runs.results import baselines_of
from vidistill.stream.evaluate import evaluate
from vidistill.stream.key_frames import Fixed
from vidistill.stream.stream import Stream
from vidistill.students.card import Card
from vidistill.students.windows import LookAhead
from vidistill.tasks.super_resolution import SuperResolution
from vidistill.tasks.super_resolution.score import warped_difference


def moving(num_frames: int, seed: int, size: tuple[int, int] = (34, 47)) -> Frames:
    """A smooth texture that slides by two pixels a frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (size[1] + 2 * num_frames, size[0]), interpolation=cv2.INTER_CUBIC)
    return Frames(np.stack([texture[:, 2 * t : 2 * t + size[1]] for t in range(num_frames)]), name=f"clip{seed}")


TASK = SuperResolution(scale=2)


def looking(network: torch.nn.Module, window: int, normalisation: Normalisation = TASK.normalisation) -> LookAhead:
    return LookAhead(network.eval(), Card(task=TASK, view=WindowView(window), normalisation=normalisation))


def bicubic_scores(sequences, task: SuperResolution = TASK) -> dict:
    """Those of bicubic enlargement, beside a network of windows."""
    return evaluate(baselines_of(task, looking(TinyWindows(), 3)), sequences, task)["bicubic"]


@pytest.mark.parametrize(
    ("channels", "mean"), [("y", 0.0), ("rgb", 0.0), ("y", 0.5)], ids=["y", "rgb", "beside a network of other values"]
)
def test_bicubic_scores_are_those_of_a_plain_loop(channels: str, mean: float) -> None:
    task = SuperResolution(scale=2, channels=channels)
    student = looking(TinyWindows(), 3, Normalisation((mean,) * 3, (1.0 - mean,) * 3))
    sequences = [moving(3, 0), moving(5, 1)]
    found = evaluate({"student": student} | baselines_of(task, student), sequences, task)["bicubic"]
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
    models = {name: looking(TinyWindows(window=window), window) for name, window in (("student", 3), ("teacher", 5))}
    models["same"] = models["teacher"]
    found = evaluate(models, [moving(5, 0)], TASK)
    assert found["same"]["psnr"] == found["teacher"]["psnr"]
    assert found["same"]["agreement_psnr"] is None, "of equal frames it is infinite, which is no number"
    assert 10 < found["student"]["agreement_psnr"] < 100
    assert found["student"]["warped_difference"] > 0
    with pytest.raises(UserError, match="clip0: has 4 frames, expected at least the window of 5"):
        evaluate(models, [moving(4, 0)], TASK)
    with pytest.raises(UserError, match=r"clip0: frames are 40x10 pixels, expected at least 11x11 for SSIM"):
        evaluate(models, [moving(5, 0, (10, 40))], TASK)


def test_frames_that_equal_the_truth_are_left_out_of_its_mean_alone() -> None:
    """Bicubic enlargement makes a grey frame what it was."""
    textured, grey = moving(3, 0, (34, 46)), np.full((34, 46, 3), 90, np.uint8)
    mixed = Frames(np.concatenate([textured.frames, grey[None]]), name="mixed")
    still = Frames(np.stack([grey, grey]), name="still")

    found, plain = bicubic_scores([mixed, still]), bicubic_scores([textured])
    assert found["psnr"] == pytest.approx(plain["psnr"])
    assert found["ssim"] == pytest.approx(((3 * plain["ssim"] + 1) / 4 + 1) / 2)
    assert found["by_clip"]["still"]["psnr"] is None
    assert found["num_scored"] == 6
    assert found["protocol"].endswith("Left out of the mean PSNR to the truth: 3 frames that equal it.")
    assert "Left out" not in plain["protocol"]
    assert bicubic_scores([still])["psnr"] is None


def test_videos_that_cannot_be_scored_are_refused_beforehand() -> None:
    def check(*sequences) -> None:
        TASK.check_videos(sequences, [WindowView(3), None, WindowView(5)])

    fine = moving(5, 0)
    check(fine, HighResolutionSequence(fine, 2))
    with pytest.raises(UserError, match="clip1: has 4 frames, expected at least the window of 5"):
        check(fine, moving(4, 1))
    with pytest.raises(UserError, match=r"clip1: frames are 40x10 pixels, expected at least 11x11 for SSIM"):
        check(fine, moving(5, 1, (10, 40)))
    with pytest.raises(UserError, match="clip1: is read for scale 4, expected 2 as for the task"):
        check(fine, HighResolutionSequence(moving(5, 1), 4))
    low = Frames(np.zeros((5, 17, 20, 3), np.uint8))
    with pytest.raises(UserError, match="clip1: low-resolution frames are 20x17"):
        check(fine, HighResolutionSequence(moving(5, 1), 2, low))


def test_of_a_vimeo_septuplet_the_centre_frame_is_scored() -> None:
    septuplet = moving(7, 0)
    found = bicubic_scores([HighResolutionSequence(septuplet, 2, centre_only=True)])
    expected = bicubic_scores([Frames(septuplet.frames[3:4])])
    assert (found["psnr"], found["ssim"]) == (expected["psnr"], expected["ssim"])
    assert (found["num_scored"], found["num_frames"], found["warped_difference"]) == (1, 7, None)
    assert "mean over the centre frames of a clip, then over 1 clips, 1 frames" in found["protocol"]


@pytest.mark.parametrize("interval", [2, 3])
def test_the_centre_frame_alone_is_what_a_stream_makes_of_it(interval: int) -> None:
    """A network without key frames runs once; one with some, on all that comes before."""
    septuplet = HighResolutionSequence(moving(7, 0), 2, centre_only=True)
    card = Card(task=TASK, view=WindowView(3), normalisation=TASK.normalisation, key_frame_interval=7)
    method = Delta()
    inner = method.finish(method.prepare(TinyWindows().eval(), torch.zeros(1, 3, 3, 8, 10), card=card))
    for block in inner.blocks().values():  # so that it makes a difference where the key frames are
        torch.nn.init.normal_(next(block.student.parameters()), std=0.3)
    networks = {"five": TinyWindows(window=5), "three": TinyWindows(), "delta": inner}
    models = {name: looking(network, 5 if name == "five" else 3) for name, network in networks.items()}
    lows = [low for low, _ in septuplet.pairs(TASK.degrade)]
    streamed = {n: list(Stream(m, key_frames=Fixed(interval))(lows))[3].prediction for n, m in models.items()}
    truth = luma([high for _, high in septuplet.pairs(TASK.degrade)][3])
    runs: list[str] = []
    for name, network in networks.items():
        network.register_forward_hook(lambda *_, name=name: runs.append(name))
    intervals = dict.fromkeys(models, interval)
    found = evaluate(models, [septuplet], TASK, intervals=intervals)
    for name in models:
        assert found[name]["psnr"] == psnr(luma(streamed[name]), truth)
    once = [runs.count(name) for name in networks]  # those that prepare the networks included
    runs.clear()
    evaluate(models, [septuplet, septuplet], TASK, intervals=intervals)
    assert [runs.count(name) - n for name, n in zip(networks, once, strict=True)] == [1, 1, 4]


def test_the_protocol_says_where_low_resolution_frames_were_stored() -> None:
    high = moving(2, 0, size=(34, 46))
    low = Frames(np.zeros((2, 17, 23, 3), np.uint8))
    stored = HighResolutionSequence(high, 2, low)
    found = bicubic_scores([stored])
    assert found["protocol"].startswith("low-resolution frames as stored;")
    assert found["psnr"] == pytest.approx(np.mean([psnr(luma(i * 0), luma(i)) for i in high.frames]))


def test_warped_difference_by_hand() -> None:
    first = np.array([[10, 20, 30]], np.uint8)
    second = np.array([[0, 13, 20]], np.uint8)  # all moved right by one, the first gone
    motion = Correspondence(
        rows=np.zeros((1, 3), np.intp), columns=np.array([[1, 2, 2]]), visible=np.array([[True, True, False]])
    )
    assert warped_difference(first, second, motion) == pytest.approx(1.5)  # |10 − 13| and |20 − 20|
