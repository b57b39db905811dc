"""Scenes as pixels: (height, width, 3) uint8 RGB, edges smooth over one pixel. NumPy only."""

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from colibri.testbed.world import COLOURS, BackgroundName, Scene, Shape, ShapeName, centre

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]


def render(
    scene: Scene,
    *,
    frames: int,
    height: int,
    width: int,
    fps: float = 16.0,
    texture: bool = True,
) -> Iterator[Pixels]:
    """The scene's frames, one after the other; without texture no waves, stripes or stars."""
    ground = background(scene, height, width, texture=texture)
    for index in range(frames):
        picture = ground.copy()
        for shape in scene.shapes:
            _draw(picture, shape, index / fps)
        yield (picture + 0.5).astype(np.uint8)


def background(
    scene: Scene, height: int, width: int, *, texture: bool = True
) -> NDArray[np.float32]:
    """What lies behind the shapes: (height, width, 3) in [0, 255]."""
    return _background(scene.background, scene.background_colour, height, width, texture)


def coverage(shape: Shape, seconds: float, height: int, width: int) -> Plane:
    """How much of each pixel the shape covers, in [0, 1]: the exact truth for a scorer."""
    canvas = np.zeros((height, width), np.float32)
    _cover(canvas, shape, seconds)
    return canvas


def _draw(picture: NDArray[np.float32], shape: Shape, seconds: float) -> None:
    mask = np.zeros(picture.shape[:2], np.float32)
    window = _cover(mask, shape, seconds)
    alpha = mask[window][..., None]
    colour = np.array(COLOURS[shape.colour], np.float32)
    picture[window] += alpha * (colour - picture[window])


def _cover(canvas: Plane, shape: Shape, seconds: float) -> tuple[slice, slice]:
    height, width = canvas.shape
    radius = shape.radius * min(height, width)
    row, column = centre(shape, seconds, height, width)
    reach = radius + 2
    rows = slice(max(0, int(row - reach)), min(height, int(row + reach) + 1))
    columns = slice(max(0, int(column - reach)), min(width, int(column + reach) + 1))
    y: Plane = (np.arange(rows.start, rows.stop) - row)[:, None].astype(np.float32)
    x: Plane = (np.arange(columns.start, columns.stop) - column)[None, :].astype(np.float32)
    canvas[rows, columns] = np.clip(0.5 - _distance(shape.name, y, x, radius), 0, 1)
    return rows, columns


def _distance(name: ShapeName, y: Plane, x: Plane, radius: float) -> Plane:
    """Signed distance in pixels to the outline: negative inside."""
    if name == "circle":
        return np.hypot(y, x) - np.float32(radius)
    if name == "square":
        return np.maximum(np.abs(y), np.abs(x)) - np.float32(0.85 * radius)
    points = _triangle(radius) if name == "triangle" else _star(radius)
    return _polygon(points, y, x)


def _triangle(radius: float) -> tuple[tuple[float, float], ...]:
    return _corners(3, (radius,))


def _star(radius: float) -> tuple[tuple[float, float], ...]:
    return _corners(10, (radius, 0.45 * radius))


def _corners(count: int, radii: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    angles = np.arange(count) * 2 * np.pi / count
    return tuple(
        (float(-radii[i % len(radii)] * np.cos(a)), float(radii[i % len(radii)] * np.sin(a)))
        for i, a in enumerate(angles)
    )


def _polygon(points: tuple[tuple[float, float], ...], y: Plane, x: Plane) -> Plane:
    nearest = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, np.float32)
    inside = np.zeros(nearest.shape, bool)
    for (y0, x0), (y1, x1) in zip(points, points[1:] + points[:1], strict=True):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        nearest = np.minimum(nearest, np.hypot(y - y0 - along * dy, x - x0 - along * dx))
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < dx * (y - y0) / np.float32(dy or 1e-9) + x0)
    return np.where(inside, -nearest, nearest).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _background(
    name: BackgroundName, colour: str, height: int, width: int, texture: bool
) -> NDArray[np.float32]:
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    if name == "plain":
        base = 0.45 * np.array(COLOURS[colour], np.float32) + 0.55 * 70
        return np.broadcast_to(base, (height, width, 3)) + 18 * (0.5 - y) + 0 * x
    if name == "night":
        sky = _mix((16, 18, 44), (58, 50, 96), y) + 0 * x
        rng = np.random.default_rng(5)
        for _ in range(60 if texture else 0):
            star = int(rng.integers(height * 3 // 4)), int(rng.integers(width))
            sky[star] = 200
        return sky
    if name == "sea":
        waves = (8 if texture else 0) * np.sin(60 * y + 9 * np.sin(7 * x))
        sea = _mix((40, 110, 140), (18, 70, 110), y) + waves
        sky = _mix((250, 214, 170), (245, 170, 110), y) + 0 * x
        return np.where(y < 0.45, sky, sea).astype(np.float32)
    hill = 0.62 + 0.05 * np.sin(6 * x + 1) + 0.03 * np.sin(17 * x)
    grass = _mix((126, 178, 80), (70, 130, 56), y)
    grass = grass + (5 if texture else 0) * np.sin(210 * x + 40 * y)
    sky = _mix((150, 196, 240), (222, 236, 248), y) + 0 * x
    return np.where(y < hill, sky, grass).astype(np.float32)


def _mix(
    top: tuple[int, int, int], bottom: tuple[int, int, int], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    mixed = (1 - y) * np.array(top, np.float32) + y * np.array(bottom, np.float32)
    return mixed.astype(np.float32)
