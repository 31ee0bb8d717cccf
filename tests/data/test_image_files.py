"""Reading image files, and their order in a folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidistill.data.image_files import natural_key, read_image
from vidistill.errors import UserError


def test_read_image(tmp_path: Path) -> None:
    image = np.random.default_rng(5).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(image, -1))
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), image[..., :1].repeat(3, 2))
    Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (4, 6, 3)
    with pytest.raises(UserError, match="image not found"):
        read_image(tmp_path / "missing.png")


def test_natural_order() -> None:
    names = ["f10.png", "f9.png", "f009.png", "f1.png", "10.png", "2.png", "b.png"]
    in_order = ["2.png", "10.png", "b.png", "f1.png", "f009.png", "f9.png", "f10.png"]
    assert sorted(names, key=natural_key) == in_order
