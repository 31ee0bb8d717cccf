"""Reading image files, and their order in a folder."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from vidistill.data import image_files
from vidistill.data.image_files import natural_key, read_image
from vidistill.data.sequences.images import read_channel
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


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), (40 * level, 0, 0)) for level in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".tiff"])
def test_several_pictures_are_no_frame(tmp_path: Path, suffix: str) -> None:
    animated(tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match="holds several pictures"):
        read_image(tmp_path / f"a{suffix}")


def test_the_preview_beside_a_cameras_picture_is_not_read(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    assert read_image(tmp_path / "a.jpg").min() > 250


SIDE = 2**13  # squared, twice what is read


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".tiff"])
def test_a_picture_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, options = Image.new("L", (8, 8)), {"compression": "tiff_deflate"} if suffix == ".tiff" else {}
    picture.save(tmp_path / f"a{suffix}", **options)
    read_image(tmp_path / f"a{suffix}")
    monkeypatch.setattr(image_files, "MOST_PIXELS", 63)
    monkeypatch.setattr(ImageFile.ImageFile, "load", pytest.fail)
    with pytest.raises(UserError, match=r"has 8x8 pixels, more than .* million; make it smaller"):
        read_image(tmp_path / f"a{suffix}")


def test_a_small_file_of_a_huge_picture(tmp_path: Path) -> None:
    Image.new("1", (SIDE, SIDE)).save(tmp_path / "a.png")  # 8 MB here, 256 MB as RGB
    assert (tmp_path / "a.png").stat().st_size < 10_000
    with pytest.raises(UserError, match="has 8192x8192 pixels, more than 33 million"):
        read_image(tmp_path / "a.png")


def test_tiles_of_a_tiff_count(tmp_path: Path) -> None:
    """A picture of 8×8 in one tile of 8192×8192, written by hand."""
    values = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: SIDE, 323: SIDE, 324: 8, 325: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    header = struct.pack("<2sHIH", b"II", 42, 8, len(values))
    (tmp_path / "a.tiff").write_bytes(header + entries + bytes(4))
    with pytest.raises(UserError, match=r"has 8192x8192 pixels, more than 33 million"):
        read_image(tmp_path / "a.tiff")


def test_pictures_that_are_no_frames(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "deep.tiff")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "program.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    (tmp_path / "empty.png").write_bytes(b"")
    for name, fault in (
        ("float.tiff", "must have 8 or 16 bits a channel, got float32 values"),
        ("deep.tiff", "must have 8 or 16 bits a channel, got int32 values"),
        ("folder.png", "is not a file"),
        ("program.png", "is none of PNG, TIFF"),
        ("empty.png", "is none of PNG, TIFF"),
    ):
        with pytest.raises(UserError, match=fault):
            read_image(tmp_path / name)


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x00")
    assert read_image(tmp_path / "a.jpg").shape == (6, 8, 3)


def test_label_images_are_turned_as_their_frames(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as file:
            expected = np.asarray(ImageOps.exif_transpose(file))
        assert read_channel(tmp_path / "a.png").tolist() == expected.tolist()
        assert read_image(tmp_path / "a.png")[..., 0].tolist() == expected.tolist()


def test_natural_order() -> None:
    names = ["f10.png", "f9.png", "f009.png", "f1.png", "10.png", "2.png", "b.png"]
    in_order = ["2.png", "10.png", "b.png", "f1.png", "f009.png", "f9.png", "f10.png"]
    assert sorted(names, key=natural_key) == in_order
