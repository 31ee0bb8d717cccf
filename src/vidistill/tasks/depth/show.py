"""How depth looks: colours by distance on a stream, a run's pictures, a strip with errors on its page."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image
from vidistill.files import atomic_path
from vidistill.ops.draw import caption
from vidistill.report.figures import image_uri
from vidistill.report.page import StripRow, distance_title, strip_table
from vidistill.tasks.contract import Look, Pictures, StreamOutput, key_or_distance, strip_indices
from vidistill.tasks.depth.maps import to_png
from vidistill.tasks.depth.score import DepthTruth

SPAN = 50.0  # the largest depth is this many times the one with the brightest colour
UNKNOWN = (128, 128, 128)
ERROR = "#dc1e1e"
LARGEST_ERROR = 0.25  # relative, that is red; less is paler
NUM_SWATCHES = 5  # of the legend

Depths = NDArray[np.floating]  # (H, W) metres, 0 where unknown


def colour(depth: Depths, max_depth: float) -> Image:
    """(H, W, 3): near is bright and warm, far is dark, equal steps for equal ratios; the same colour in every picture.

    matplotlib's "inferno", which is perceptually uniform, over log depth, `max_depth` / SPAN … `max_depth`.
    """
    nearness = np.log(max_depth / depth.clip(max_depth / SPAN, max_depth)) / np.log(SPAN)
    levels = np.rint(255 * nearness).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    picture[depth <= 0] = UNKNOWN
    return np.asarray(picture, dtype=np.uint8)


def errors_of(depth: Depths, reference: Depths) -> NDArray[np.floating]:
    """(H, W) |depth − reference| / reference, 0 where the reference is unknown."""
    return np.where(reference > 0, np.abs(depth - reference) / np.maximum(reference, 1e-9), 0)


def error_picture(image: Image, errors: NDArray[np.floating]) -> Image:
    """The frame in pale grey, the redder the larger the relative error (H, W)."""
    grey = 0.5 * image.mean(axis=-1, keepdims=True) + 96
    strength = (errors / LARGEST_ERROR).clip(0, 1)[..., None]
    red = np.array(bytearray.fromhex(ERROR[1:]))
    return np.rint(grey * (1 - strength) + red * strength).astype(np.uint8)


class DepthLook(Look):
    """Depth as colours; in words its nearest, median and farthest metres; as a file a 16-bit PNG, see `maps`."""

    def __init__(self, max_depth: float) -> None:
        self.max_depth = max_depth

    def draw(self, output: StreamOutput) -> Image:
        kind = "key" if output.is_key_frame else "delta"
        return caption(colour(output.prediction, self.max_depth), f"{kind} {output.milliseconds:.0f} ms")

    def describe(self, output: StreamOutput) -> Values:
        least, median, most = np.percentile(output.prediction, [0, 50, 100]).tolist()
        return {"metres": {"nearest": round(least, 3), "median": round(median, 3), "farthest": round(most, 3)}}

    def image(self, output: StreamOutput) -> NDArray[np.uint16]:
        return to_png(output.prediction)


class DepthPictures(Pictures[DepthTruth]):
    """Panels of input, teacher, student and error; a strip of a few frames for the page, `strip.npz`.

    Without a teacher the truth stands in its place. In the file: frames (N, H, W, 3), distances (N,), `max_depth`, and
    by name (truth, teacher, student) metres (N, H, W).
    """

    def __init__(self, max_depth: float, *, interval: int, length: int) -> None:
        self.max_depth, self.interval = max_depth, interval
        self._chosen = strip_indices(length, interval)
        self._strip: list[tuple[int, Image, dict[str, Depths]]] = []

    def panel(self, truth: DepthTruth, outputs: dict[str, StreamOutput]) -> Image:
        index = outputs["student"].index
        depths: dict[str, Depths] = {} if truth.depth is None else {"truth": truth.depth}
        depths |= {name: outputs[name].prediction for name in ("teacher", "student") if name in outputs}
        if index in self._chosen:
            self._strip.append((index % self.interval, truth.image, depths))
        student = depths["student"]
        name = "teacher" if "teacher" in depths else "truth"
        reference = depths.get(name, np.zeros_like(student))
        errors = errors_of(student, reference)
        kind = key_or_distance(index % self.interval)
        top = [caption(truth.image, "input"), caption(colour(reference, self.max_depth), name)]
        bottom = [
            caption(colour(student, self.max_depth), f"student, {kind}"),
            caption(error_picture(truth.image, errors), f"error to the {name} {_mean(errors, reference):.1%}"),
        ]
        return np.vstack([np.hstack(top), np.hstack(bottom)])

    def save(self, folder: Path) -> None:
        in_all = [name for name in ("truth", "teacher", "student") if all(name in d for _, _, d in self._strip)]
        with atomic_path(folder / "strip.npz") as temporary:
            np.savez_compressed(
                temporary,
                frames=np.stack([image for _, image, _ in self._strip]),
                distances=np.array([distance for distance, _, _ in self._strip]),
                max_depth=np.array(self.max_depth),
                **{n: np.stack([d[n] for _, _, d in self._strip]).astype(np.float16) for n in in_all},  # type: ignore[arg-type]
            )


def _mean(errors: NDArray[np.floating], reference: Depths) -> float:
    """Of the errors where the reference is known, 0 where it is nowhere."""
    return float(errors.sum() / max(1, (reference > 0).sum()))


def read_strip(path: Path) -> str:
    """The page's table from a strip.npz: a row for each frame, and a legend of the colours in metres."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    max_depth = float(arrays["max_depth"])
    depths = {name: arrays[name].astype(np.float32) for name in ("truth", "teacher", "student") if name in arrays}
    reference = next((name for name in ("teacher", "truth") if name in depths), None)
    rows = []
    for i, frame in enumerate(arrays["frames"]):
        images = {"input": image_uri(frame, "jpeg")}
        images |= {name: image_uri(colour(maps[i], max_depth), "png") for name, maps in depths.items()}
        note = ""
        if reference is not None:
            errors = errors_of(depths["student"][i], depths[reference][i])
            images[f"error to the {reference}"] = image_uri(error_picture(frame, errors), "jpeg")
            note = f"mean error {_mean(errors, depths[reference][i]):.1%}"
        rows.append(StripRow(distance_title(int(arrays["distances"][i])), images, note))
    return strip_table(rows, _legend(max_depth, depths, reference))


def _legend(max_depth: float, depths: dict[str, Depths], reference: str | None) -> list[tuple[str, str]]:
    """(name, #rrggbb) of the colours."""
    metres = np.geomspace(max_depth / SPAN, max_depth, NUM_SWATCHES)
    swatches = colour(metres[None], max_depth)[0]
    legend = [(f"{m:.2g} m", f"#{bytes(swatch).hex()}") for m, swatch in zip(metres, swatches, strict=True)]
    if any((maps <= 0).any() for maps in depths.values()):
        legend.append(("unknown", f"#{bytes(UNKNOWN).hex()}"))
    if reference is not None:
        legend.append((f"error: {LARGEST_ERROR:.0%} of the {reference}'s depth or more", ERROR))
    return legend
