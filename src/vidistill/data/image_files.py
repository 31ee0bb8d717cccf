"""Image files: the images of a folder in order, reading one, writing one."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from vidistill.errors import UserError
from vidistill.files import atomic_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def images_in(folder: Path) -> list[Path]:
    """The folder's own images in natural order, without hidden files."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=natural_key)


def natural_key(path: str | Path) -> tuple[tuple[int, int, str], ...]:
    """A sort key by the last part of `path` that puts frame_2 before frame_10, whatever the zeros."""
    parts = re.split(r"(\d+)", Path(path).name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, turned upright as its EXIF says; without alpha, and of 16 bits the upper 8."""
    try:
        with PillowImage.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"there is no image {path}: check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): replace it or take it out") from error


def write_image(image: NDArray[np.uint8], path: Path) -> None:
    """Atomically; JPEG at quality 95, colour as sharp as light."""
    with atomic_path(path) as temporary:
        PillowImage.fromarray(image).save(temporary, quality=95, subsampling=0)  # which PNG has not
