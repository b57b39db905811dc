"""A small world with known truth: what is in a scene, and where everything is in every frame.

Knows nothing of pixels (`render`) or words (`captions`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ShapeName = Literal["circle", "square", "triangle", "star"]
Motion = Literal["left", "right", "up", "down", "still"]
BackgroundName = Literal["plain", "meadow", "sea", "night"]

SHAPES: tuple[ShapeName, ...] = ("circle", "square", "triangle", "star")
MOTIONS: tuple[Motion, ...] = ("left", "right", "up", "down", "still")
BACKGROUNDS: tuple[BackgroundName, ...] = ("plain", "meadow", "sea", "night")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 45),
    "blue": (46, 92, 214),
    "yellow": (242, 202, 48),
    "green": (40, 150, 80),
    "purple": (136, 66, 176),
    "orange": (240, 136, 40),
    "white": (244, 244, 240),
    "pink": (238, 130, 176),
}

DIRECTION: dict[Motion, tuple[float, float]] = {
    "left": (0.0, -1.0),
    "right": (0.0, 1.0),
    "up": (-1.0, 0.0),
    "down": (1.0, 0.0),
    "still": (0.0, 0.0),
}
"""Unit vector (row, column) of each motion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One thing in a scene. Lengths are shares of the picture's shorter side."""

    name: ShapeName
    colour: str
    radius: float
    row: float
    """Start of the centre, as a share of the height."""
    column: float
    """Start of the centre, as a share of the width."""
    motion: Motion
    speed: float
    """Way per second, as a share of the shorter side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A background and one or two shapes, drawn back to front."""

    background: BackgroundName
    background_colour: str
    shapes: tuple[Shape, ...]


def centre(shape: Shape, seconds: float, height: int, width: int) -> tuple[float, float]:
    """(row, column) of a shape's centre in pixels; it turns back at the picture's edge."""
    side = min(height, width)
    radius = shape.radius * side
    rows, columns = DIRECTION[shape.motion]
    way = shape.speed * seconds * side
    return (
        _bounce(shape.row * height + rows * way, radius, height - radius),
        _bounce(shape.column * width + columns * way, radius, width - radius),
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene whose shapes differ in colour and whose plain background differs from them all."""
    colours = [str(name) for name in rng.permutation(list(COLOURS))]
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    usable = [name for name in colours if name not in _TOO_NEAR[background]]
    shapes = []
    for index in range(int(rng.integers(1, 3))):
        shapes.append(
            Shape(
                name=SHAPES[int(rng.integers(len(SHAPES)))],
                colour=usable[index],
                radius=float(rng.uniform(0.12, 0.22)),
                row=float(rng.uniform(0.3, 0.6)),
                column=0.3 + 0.4 * index + float(rng.uniform(-0.1, 0.1)),
                motion=MOTIONS[int(rng.integers(len(MOTIONS)))],
                speed=float(rng.uniform(0.08, 0.3)),
            )
        )
    return Scene(background=background, background_colour=usable[-1], shapes=tuple(shapes))


def near_colours(background: BackgroundName) -> frozenset[str]:
    """Colours that a shape before this background should not have."""
    return frozenset(_TOO_NEAR[background])


_TOO_NEAR: dict[BackgroundName, tuple[str, ...]] = {
    "plain": (),
    "meadow": ("green", "blue"),
    "sea": ("blue", "orange"),
    "night": ("purple", "blue"),
}


def _bounce(position: float, low: float, high: float) -> float:
    if high <= low:
        return (low + high) / 2
    span = high - low
    offset = (position - low) % (2 * span)
    return low + (offset if offset <= span else 2 * span - offset)
