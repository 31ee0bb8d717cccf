"""Image files: finding them in a folder, in order; reading one; writing one."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from vidistill.errors import UserError
from vidistill.files import atomic_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
FORMATS = (*LOSSLESS, "JPEG", "WEBP")  # others are not opened: some run programs, none is a frame
MOST_PIXELS = 2**25  # 8K is 7680×4320; decoded and converted, so many take up to 0.7 GB
TOO_MANY = f"more than {MOST_PIXELS // 10**6} million"
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT, 3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM, 5: PillowImage.Transpose.TRANSPOSE, 6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE, 8: PillowImage.Transpose.ROTATE_90,
}  # fmt: skip


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order, without hidden files and without those of folders in it."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=natural_key)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder in natural order, without hidden ones; none where it does not exist."""
    folders = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in folders if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def natural_key(path: str | Path) -> tuple[tuple[int, int, str], ...]:
    """A sort key by the last part of `path`: frame_2 comes before frame_10, with or without leading zeros."""
    parts = re.split(r"(\d+)", Path(path).name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts)


def open_picture(path: str | Path, *, what: str = "an image", lossless: bool = False) -> PillowImage.Image:
    """A decoded picture, upright as its EXIF orientation says. The one place that opens pictures.

    What it would take is known before anything is decoded: more than MOST_PIXELS, or several frames, are refused.

    Args:
        path: of a file; what it holds counts, not its suffix.
        what: what it should be, for errors.
        lossless: refuse formats that change values.

    Raises:
        UserError: there is no file, it is damaged, of another format, too large, or animated.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'is not a file' if path.exists() else 'image not found'}; check the path")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: what matters is an error here
            with PillowImage.open(path, formats=FORMATS) as picture:
                _check_picture(picture, path, what, lossless=lossless)
                picture.load()
        return _upright(picture)
    except UserError:
        raise
    except PillowImage.DecompressionBombError as error:
        raise UserError(f"{path}: has pixels beyond Pillow's limit, {TOO_MANY}; make it smaller") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(LOSSLESS if lossless else FORMATS)
        raise UserError(
            f"{path}: cannot be read as {what} (it is none of {kinds}); replace it or leave it out"
        ) from error
    except Exception as error:  # Pillow's decoders raise many types
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as {what} ({reason}); replace it or leave it out") from error


def _check_picture(picture: PillowImage.Image, path: Path, what: str, *, lossless: bool) -> None:
    """Errors: UserError where a picture that was opened, but not decoded, is no single one of a fair size."""
    if lossless and picture.format not in LOSSLESS:
        kind = f"a {picture.format}, which does not keep values exactly"
        raise UserError(f"{path}: is {kind}; save {what} as PNG from the original values")
    tags = getattr(picture, "tag_v2", {})  # of TIFF, whose tiles are decoded whole
    for width, height in (picture.size, (tags.get(322, 0), tags.get(323, 0))):
        if width * height > MOST_PIXELS:
            raise UserError(f"{path}: has {width}x{height} pixels, {TOO_MANY}; make it smaller")
    if picture.format != "MPO" and getattr(picture, "is_animated", False):  # MPO: a camera's JPEG with a preview
        raise UserError(f"{path}: holds several pictures, expected {what}; save its frames as files, or as a video")


def _upright(picture: PillowImage.Image) -> PillowImage.Image:
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF, which says nothing of the pixels
        return picture
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, see `open_picture`; alpha is dropped, 16 bits become their upper 8."""
    picture = open_picture(path)
    if not picture.mode.startswith(("I", "F")):
        return np.array(picture.convert("RGB"))
    grey = np.asarray(picture)  # 16 bits or more, or floating-point numbers, whose white is unknown
    if picture.mode == "F" or grey.min() < 0 or grey.max() >= 2**16:
        raise UserError(f"{path}: an image must have 8 or 16 bits a channel, got {grey.dtype} values; convert it")
    return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)


def size_text(shape: Sequence[int]) -> str:
    """WIDTHxHEIGHT of a shape (height, width, …), for sentences."""
    return f"{shape[1]}x{shape[0]}"


def write_image(image: NDArray[np.uint8], path: Path) -> None:
    """Writes an image atomically, in the format of the path's suffix; JPEG at quality 95, full colour resolution."""
    with atomic_path(path) as temporary:
        PillowImage.fromarray(image).save(temporary, quality=95, subsampling=0)  # PNG ignores both
