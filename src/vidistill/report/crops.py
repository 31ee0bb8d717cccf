"""What a super-resolution run adds to a report: crops side by side, and a frame that is uncovered by hand."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from vidistill.report.figures import image_uri


@dataclass(frozen=True)
class Crops:
    """names: of the columns; rows: a frame's number with an image for each column; before, after: a whole frame."""

    names: list[str]
    rows: list[tuple[int, list[str]]]
    before: str
    after: str


def read_crops(path: Path) -> Crops:
    """Of a crops.npz, with images as addresses of themselves."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    rows = [
        (int(frame), [image_uri(crop, "png") for crop in crops])
        for frame, crops in zip(arrays["frames"], arrays["crops"], strict=True)
    ]
    before, after = (image_uri(arrays[name], "png") for name in ("before", "after"))
    return Crops([str(name) for name in arrays["names"]], rows, before, after)


def crops_table(crops: Crops) -> str:
    """A row for each frame, a column for each network and the truth."""
    head = "<td></td>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in crops.names)
    body = ""
    for frame, images in crops.rows:
        named = zip(crops.names, images, strict=True)
        cells = "".join(f'<td><img src="{uri}" alt="{escape(name)}, frame {frame}"></td>' for name, uri in named)
        body += f'<tr><th scope="row">frame {frame}</th>{cells}</tr>\n'
    return f'<div class="wide"><table class="strip"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'


def slider(crops: Crops) -> str:
    """Bicubic enlargement over the student's frame; its lower right corner is dragged. No script."""
    return (
        f'<div class="slider"><img src="{crops.after}" alt="The student\'s frame">'
        f'<div><img src="{crops.before}" alt="Bicubic enlargement"></div></div>\n'
        '<p class="facts">Left bicubic enlargement, right the student: drag the corner of the left one.</p>'
    )


STYLE = """
.slider { position: relative; width: min(100%, 640px); container-type: inline-size; }
.slider > div { position: absolute; inset: 0 auto 0 0; width: 50%; min-width: 1.2rem; max-width: 100%; }
.slider > div { overflow: hidden; resize: horizontal; border-right: 2px solid #fff; }
.slider > div img { width: 100cqw; max-width: none; }
"""
