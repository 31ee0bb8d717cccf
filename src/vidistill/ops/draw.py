"""Predictions drawn over frames."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3), RGB, 0…255
Colour = tuple[int, int, int]
STRENGTH = 0.55  # of a class's colour over a frame, 0…1


def palette_of(num_classes: int, colours: Sequence[Colour] = ()) -> NDArray[np.uint8]:
    """(256, 3) RGB colours by class id: those given, then hues far apart; 255, the ignored label, is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for i in range(min(num_classes, 255)):
        hue = colorsys.hsv_to_rgb(i * 0.618 % 1, 0.65, 0.95)  # the golden ratio keeps neighbours apart
        table[i] = colours[i] if i < len(colours) else [round(255 * c) for c in hue]
    return table


def overlay(
    image: Image, labels: NDArray[np.uint8], palette: NDArray[np.uint8], *, opacity: NDArray[np.floating] | None = None
) -> Image:
    """The frame with the colours of its classes over it.

    labels: (H, W); palette: (256, 3); opacity: (H, W), 0…1 of the usual strength; None for 1 everywhere.
    """
    strength = STRENGTH if opacity is None else STRENGTH * opacity[..., None]
    mixed = image * (1 - strength) + palette[labels] * strength
    return np.rint(mixed).astype(np.uint8)


def difference(image: Image, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Image:
    """The frame in grey, the pixels where the two label maps (H, W) differ in red."""
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1) * 0.6 + 60
    grey[first != second] = (230, 40, 40)
    return np.rint(grey).astype(np.uint8)


def caption(image: Image, text: str) -> Image:
    """A copy of the frame with white text on a dark bar at its top left, sized to the frame."""
    picture = np.array(image, order="C")
    scale = max(0.3, min(image.shape[:2]) / 600)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(picture, (0, 0), (width + 8, height + base + 6), (20, 20, 20), -1)
    cv2.putText(picture, text, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def draw_boxes(image: Image, boxes: NDArray[np.float32], texts: Sequence[str], colours: NDArray[np.uint8]) -> Image:
    """The frame with boxes (N, 4) xyxy outlined in colours (N, 3), each with its text on a bar of its colour."""
    picture = np.array(image)
    scale = max(0.3, min(image.shape[:2]) / 900)
    corners = np.rint(boxes).astype(int).tolist()
    for (left, top, right, bottom), text, colour in zip(corners, texts, colours, strict=True):
        shade = [int(level) for level in colour]
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), shade, max(1, round(2 * scale)))
        if not text:
            continue
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        foot = top if top >= height + base else min(bottom, image.shape[0])  # above the box where there is room
        cv2.rectangle(picture, (left, foot - height - base), (left + width, foot), shade, -1)
        ink = (0, 0, 0) if sum(shade) > 380 else (255, 255, 255)  # black on a bright bar
        cv2.putText(picture, text, (left, foot - base // 2 - 1), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return picture
