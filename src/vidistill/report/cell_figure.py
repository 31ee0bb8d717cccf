"""The figure that a space-time run adds to a report: whether its memory cell still says anything."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidistill.report.figures import INK, Picture, curve_words, draw_curves, logged, picture, steps_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"time_gap": "time gap, unweighted", "cell_variance": "variance of the teacher's cell"}


def memory_cell(log: list[dict[str, float]]) -> Picture | None:
    """Time gap and cell variance step by step, with a line where the cell froze; None where neither was logged."""
    curves = {NAMES[name]: curve for name, curve in logged(log, list(NAMES)).items()}
    if not curves:
        return None
    steps = steps_of(log)
    froze = next((float(step) for step, line in zip(steps, log, strict=True) if line.get("cell_frozen") == 1), None)
    when = "it did not freeze" if froze is None else f"frozen from step {froze:g} on"
    caption = f"The memory cell of the time loss, {when}; a variance that falls is its collapse"
    alt = f"The memory cell over {len(log)} training steps, {when}; smoothed: {curve_words(curves)}"
    return picture(partial(_draw, steps=steps, curves=curves, froze=froze), alt, caption)


def _draw(
    axes: "Axes", *, steps: NDArray[np.float64], curves: dict[str, NDArray[np.float64]], froze: float | None
) -> None:
    from matplotlib.ticker import LogLocator

    if froze is not None:
        axes.axvline(froze, color=INK, linestyle="--", label="frozen")
    draw_curves(axes, steps=steps, curves=curves, ylabel="mean square")
    axes.yaxis.set_major_locator(LogLocator(numticks=8))  # a gap falls through many decades
