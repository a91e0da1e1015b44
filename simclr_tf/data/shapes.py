"""`shapes`: a small labeled dataset that is rendered on the fly, for first runs and tests.

Ten kinds of shape on 32x32 RGB images. Only the outline determines the class: colors, position,
size, rotation, the background's gradient and stripes, and noise are drawn independently of it.
Backgrounds are smooth and shapes fill most of the frame, because with a strong texture the
contrastive task is solved by the background and no shape is learned.

Image i of a split depends on (split, i) alone. Pixels are computed with operations that IEEE 754
rounds exactly, so that every machine renders the same bytes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np

from simclr_tf.data.base import ArraySource, split_indices

SIZE = 32
SPLITS = {"train": 10_000, "test": 2_000}

_CHUNK = 500  # images rendered at once: the work arrays stay in the processor's cache


def open_shapes(split: str) -> ArraySource:
    """Opens a split of `shapes`, in TFDS's syntax."""
    parts = split_indices("shapes", split, SPLITS)
    images = [_images(name, int(part.max(initial=0)).bit_length())[part] for name, part in parts]
    labels = [part % len(CLASS_NAMES) for _, part in parts]
    ids = [f"{name}/{number}" for name, part in parts for number in part]
    return ArraySource(
        f"shapes {split}",
        np.concatenate(images),
        np.concatenate(labels),
        CLASS_NAMES,
        image_ids=lambda indices: [ids[i] for i in indices],
    )


@functools.cache
def _images(split: str, bits: int) -> np.ndarray:
    """Renders the first 2^bits images of a split, or all: small slices are ready at once."""
    return render_split(split, min(2**bits, SPLITS[split]))[0]


def render_split(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders the first images of a split: uint8 [count, 32, 32, 3] and int64 labels [count]."""
    key = list(SPLITS).index(split)
    # Raw bits, because only those are guaranteed to be the same in all versions of NumPy.
    bits = np.random.Philox(key=[key, 0]).random_raw(count * _DRAWS)
    uniform = (bits >> 11).reshape(count, _DRAWS) * 2.0**-53
    bits = np.random.Philox(key=[key, 1]).random_raw(count * SIZE * SIZE * 3 // 8)
    noise = bits.astype("<u8").view(np.int8).reshape(count, SIZE, SIZE, 3)
    labels = np.arange(count) % len(CLASS_NAMES)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for label, distance in enumerate(_SHAPES.values()):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            images[chunk] = _render(distance, uniform[chunk], noise[chunk])
    return images, labels


# Columns of the uniform draws of one image.
_RADIUS, _X, _Y, _ANGLE, _GRADIENT, _STRIPES, _PHASE, _PERIOD, _STRENGTH, _NOISE = range(10)
_LEVEL, _CONTRAST, _SHADE, _TINT = range(10, 14)
_HUES = slice(14, 17)
_DRAWS = 17


def _render(
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray], u: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Renders one class; `u` is uniform [M, _DRAWS], `noise` int8 [M, S, S, 3]."""

    def column(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    grid = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    x, y = grid[None, None, :], grid[None, :, None]

    # The circumscribed circle spans 60 to 88 % of the frame and may leave it a little.
    radius = SIZE / 2 * (0.6 + 0.28 * u[:, _RADIUS])
    max_offset = SIZE / 2 - 0.6 * radius
    angle = 2 * np.pi * u[:, _ANGLE]
    cos, sin = column(np.cos(angle) / radius), column(np.sin(angle) / radius)
    dx = x - column(max_offset * (2 * u[:, _X] - 1))
    dy = y - column(max_offset * (2 * u[:, _Y] - 1))
    pixels = distance(cos * dx + sin * dy, cos * dy - sin * dx) * column(radius)
    inside = np.clip(0.5 - pixels, 0, 1)[..., None]

    angle = 2 * np.pi * u[:, _GRADIENT]
    gradient = column(np.cos(angle)) * x + column(np.sin(angle)) * y
    gradient = gradient / np.float32(SIZE * 1.2) + 0.5
    angle = 2 * np.pi * u[:, _STRIPES]
    period = 6 + 10 * u[:, _PERIOD]
    wave = column(np.cos(angle) / period) * x + column(np.sin(angle) / period) * y
    wave = wave + column(u[:, _PHASE])
    stripes = np.abs(wave - np.floor(wave) - np.float32(0.5)) - np.float32(0.25)
    stripes = stripes * column(0.12 * u[:, _STRENGTH])

    # One tint in three shades, so that after color jitter images differ in little but the outline.
    # The brightness of shape and background differs by at least a third of the range.
    tint = 0.3 * u[:, _TINT, None] * (u[:, _HUES] - u[:, _HUES].mean(axis=1, keepdims=True))
    level = 0.1 + 0.8 * u[:, _LEVEL]
    contrast_range = np.where(level < 0.5, 0.95 - level, level - 0.05)
    contrast = 0.35 + (contrast_range - 0.35) * u[:, _CONTRAST]
    foreground = level + np.where(level < 0.5, 1, -1) * contrast
    first, color = level[:, None] + tint, foreground[:, None] + tint
    second = first + (0.3 * u[:, _SHADE] - 0.15)[:, None]

    def pixel(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None, :]

    ground = pixel(first) + pixel(second - first) * gradient[..., None] + stripes[..., None]
    image = ground + (pixel(color) - ground) * inside
    image = image + noise.astype(np.float32) * column(0.08 * u[:, _NOISE] / 128)[..., None]
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


# Signed distances (negative inside) of outlines within the unit circle, y downwards.


def _polygon(*corners: tuple[float, float]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns the distance to the nearest edge of a polygon, signed by the crossing-number rule."""
    points = np.asarray(corners, np.float32)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest = np.full(x.shape, np.inf, np.float32)
        outside = np.ones(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            ex, ey, px, py = x1 - x0, y1 - y0, x - x0, y - y0
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            qx, qy = px - ex * along, py - ey * along
            nearest = np.minimum(nearest, qx * qx + qy * qy)
            crosses = (y >= y0) != (y >= y1)
            outside ^= crosses & ((ex * py - ey * px > 0) == (ey > 0))
        return np.where(outside, np.sqrt(nearest), -np.sqrt(nearest))

    return distance


def _regular_corners(radii: tuple[float, ...], per_turn: int) -> list[tuple[float, float]]:
    """Returns corners at equal angles whose radii repeat."""
    angles = 2 * np.pi * np.arange(per_turn) / per_turn
    return [(r * np.sin(a), -r * np.cos(a)) for r, a in zip(itertools.cycle(radii), angles)]


def _disc(x: np.ndarray, y: np.ndarray, cx: float = 0.0, radius: float = 1.0) -> np.ndarray:
    dx = x - np.float32(cx)
    return np.sqrt(dx * dx + y * y) - np.float32(radius)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(_disc(x, y, radius=0.76)) - np.float32(0.2)


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_disc(x, y), -_disc(x, y, cx=0.5, radius=0.8))


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Two discs over a corner: exact enough near the outline, where the edge is smoothed.
    dx, dy = np.float32(0.42), y + np.float32(0.36)
    lobes = np.minimum(_disc(x - dx, dy, radius=0.52), _disc(x + dx, dy, radius=0.52))
    return np.minimum(lobes, _HEART_POINT(x, y))


_HEART_POINT = _polygon((-0.87, -0.1), (0.0, -0.5), (0.87, -0.1), (0.0, 0.95))

_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": functools.partial(_disc, radius=0.85),
    "square": _polygon(*_regular_corners((1.0,), 4)),
    "triangle": _polygon(*_regular_corners((1.0,), 3)),
    "star": _polygon(*_regular_corners((1.0, 0.42), 10)),
    "cross": _polygon(
        *[(-0.27, -0.95), (0.27, -0.95), (0.27, -0.27), (0.95, -0.27), (0.95, 0.27), (0.27, 0.27)],
        *[(0.27, 0.95), (-0.27, 0.95), (-0.27, 0.27), (-0.95, 0.27), (-0.95, -0.27)],
        (-0.27, -0.27),
    ),
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _polygon(
        *[(0.0, -1.0), (0.8, -0.1), (0.28, -0.1), (0.28, 0.95), (-0.28, 0.95), (-0.28, -0.1)],
        (-0.8, -0.1),
    ),
    "hourglass": _polygon(
        *[(-0.72, -0.7), (0.72, -0.7), (0.12, 0.0), (0.72, 0.7), (-0.72, 0.7), (-0.12, 0.0)]
    ),
}

CLASS_NAMES = tuple(_SHAPES)
