"""The small world: simple enough to train tiny video models in, 17 frames of 64x64 at 8 a second.

Shapes never touch each other or the edge, and move evenly in one direction. They have two sizes,
two speeds, start on a grid of 8 pixels, and share no colour with a plain background: a model of a
few million parameters, trained on a CPU, learns to draw them sharply. `free` scenes have any size,
place, speed and colour.
"""

import math
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colibri.testbed.render import render
from colibri.testbed.world import (
    DIRECTION,
    MOTIONS,
    SHAPES,
    BackgroundName,
    Motion,
    Scene,
    Shape,
    near_colours,
)

FRAMES = 17
SIDE = 64
"""Height and width in pixels."""
FPS = 8.0
SECONDS = (FRAMES - 1) / FPS
"""From the first frame to the last."""

COLOUR_NAMES = ("red", "yellow", "green", "orange", "white", "pink")
FREE_COLOUR_NAMES = ("red", "blue", "yellow", "green", "purple", "orange", "white", "pink")
PLACES: tuple[tuple[BackgroundName, str], ...] = (
    ("plain", "blue"),
    ("plain", "purple"),
    ("meadow", "white"),
    ("sea", "white"),
    ("night", "white"),
)
"""Backgrounds with their colour; only a plain one shows it."""
FREE_PLACES: tuple[tuple[BackgroundName, str], ...] = (
    ("plain", "red"),
    ("plain", "blue"),
    ("plain", "green"),
    ("plain", "purple"),
    *PLACES[2:],
)

PAIRS = 0.3
"""Share of scenes with two shapes."""

Part = Literal["train", "held-out"]


def small_scene(
    rng: np.random.Generator,
    *,
    part: Part | None = None,
    free: bool = False,
    pairs: float = PAIRS,
) -> Scene:
    """One shape or two on one of `PLACES`; `part` draws only from that part of the scenes.

    `pairs` is the share of scenes with two shapes. Two are held out more often than one; so how
    many a held-out scene has is drawn first.
    """
    if part == "held-out":
        pairs = float(rng.random() < pairs)
    while True:
        scene = _any_scene(rng, free=free, pairs=pairs)
        if part is None or part_of(scene) == part:
            return scene


def part_of(scene: Scene) -> Part:
    """About every twelfth combination of a shape, its colour, motion and background is held out."""
    held = any(
        zlib.crc32(
            f"{shape.colour} {shape.name} {shape.motion} {scene.background} "
            f"{scene.background_colour}".encode()
        )
        % 12
        == 0
        for shape in scene.shapes
    )
    return "held-out" if held else "train"


def small_clip(scene: Scene, *, frames: int = FRAMES, side: int = SIDE) -> NDArray[np.uint8]:
    """The scene as (frames, side, side, 3) RGB, at `FPS`, without texture."""
    return np.stack(
        list(render(scene, frames=frames, height=side, width=side, fps=FPS, texture=False))
    )


def _any_scene(rng: np.random.Generator, *, free: bool, pairs: float) -> Scene:
    places = FREE_PLACES if free else PLACES
    background, colour = places[int(rng.integers(len(places)))]
    taken = near_colours(background) | ({colour} if background == "plain" else set())
    names = rng.permutation(FREE_COLOUR_NAMES if free else COLOUR_NAMES)
    colours = [str(name) for name in names if name not in taken]
    shapes: tuple[Shape, ...]
    if rng.random() < 1 - pairs:
        shapes = (_shape(rng, colours[0], (FREE_ALONE if free else GRID_ALONE), MOTIONS),)
    else:
        axis: tuple[Motion, ...] = ("left", "right") if rng.random() < 0.5 else ("up", "down")
        form = FREE_PAIR if free else GRID_PAIR
        shapes = tuple(
            _shape(rng, colours[i], form, (*axis, "still"), lane=float(lane))
            for i, lane in enumerate(rng.permutation(form.lanes))
        )
    return Scene(background=background, background_colour=colour, shapes=shapes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """What a shape may be: shares of the side. A range of two, or single values on the grid."""

    radius: tuple[float, ...]
    way: tuple[float, ...] = (0.25, 0.45)
    """From the first frame to the last."""
    step: float | None = None
    """Of the grid on which a shape starts; its values are drawn one by one then."""
    lanes: tuple[float, ...] = (0.27, 0.73)

    def draw(self, rng: np.random.Generator, values: tuple[float, ...]) -> float:
        return float(rng.choice(values) if self.step else rng.uniform(values[0], values[1]))

    def place(self, rng: np.random.Generator, low: float, high: float) -> float:
        if not self.step:
            return float(rng.uniform(low, high))
        first, last = math.ceil(low / self.step - 1e-9), math.floor(high / self.step + 1e-9)
        return self.step * int(rng.integers(first, last + 1))


FREE_ALONE = _Form(radius=(0.17, 0.25))
FREE_PAIR = _Form(radius=(0.13, 0.2))
GRID_ALONE = _Form(radius=(0.15625, 0.25), way=(0.25, 0.5), step=0.125)
GRID_PAIR = _Form(radius=(0.15625,), way=(0.25, 0.5), step=0.125, lanes=(0.25, 0.75))


def _shape(
    rng: np.random.Generator,
    colour: str,
    form: _Form,
    motions: tuple[Motion, ...],
    *,
    lane: float | None = None,
) -> Shape:
    """A shape whose way fits into the picture; `lane` fixes the coordinate it does not move in."""
    size = form.draw(rng, form.radius)
    motion = motions[int(rng.integers(len(motions)))]
    way = 0.0 if motion == "still" else form.draw(rng, form.way)
    start = []
    across = any(name in motions for name in ("left", "right"))
    down = any(name in motions for name in ("up", "down"))
    lanes = (across and not down, down and not across)
    for along, fixed in zip(DIRECTION[motion], lanes, strict=True):
        low, high = size + max(0.0, -along * way), 1 - size - max(0.0, along * way)
        start.append(lane if fixed and lane is not None else form.place(rng, low, high))
    return Shape(
        name=SHAPES[int(rng.integers(len(SHAPES)))],
        colour=colour,
        radius=size,
        row=start[0],
        column=start[1],
        motion=motion,
        speed=way / SECONDS,
    )
