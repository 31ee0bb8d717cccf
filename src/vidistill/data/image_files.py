"""Image files: finding them in a folder, in order; reading one; writing one."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from vidistill.errors import UserError
from vidistill.files import atomic_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


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


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, upright as its EXIF orientation says; alpha is dropped, 16 bits become their upper 8."""
    try:
        with PillowImage.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey
                grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: image not found; check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); replace it or leave it out") from error


def size_text(shape: Sequence[int]) -> str:
    """WIDTHxHEIGHT of a shape (height, width, …), for sentences."""
    return f"{shape[1]}x{shape[0]}"


def write_image(image: NDArray[np.uint8], path: Path) -> None:
    """Writes an image atomically, in the format of the path's suffix; JPEG at quality 95, full colour resolution."""
    with atomic_path(path) as temporary:
        PillowImage.fromarray(image).save(temporary, quality=95, subsampling=0)  # PNG ignores both
