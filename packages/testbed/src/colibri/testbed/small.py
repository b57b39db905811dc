"""The small world: simple enough to train tiny video models in, 17 frames of 64x64 at 8 a second.

Shapes are large, never touch each other or the edge, and move evenly in one direction.
"""

import zlib
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

COLOUR_NAMES = ("red", "blue", "yellow", "green", "purple", "orange", "white", "pink")
PLACES: tuple[tuple[BackgroundName, str], ...] = (
    ("plain", "red"),
    ("plain", "blue"),
    ("plain", "green"),
    ("plain", "purple"),
    ("meadow", "white"),
    ("sea", "white"),
    ("night", "white"),
)
"""Backgrounds with their colour; only a plain one shows it."""

Part = Literal["train", "held-out"]


def small_scene(rng: np.random.Generator, *, part: Part | None = None) -> Scene:
    """One or two shapes on one of `PLACES`; `part` draws only from that part of the scenes."""
    while True:
        scene = _any_scene(rng)
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


def _any_scene(rng: np.random.Generator) -> Scene:
    background, colour = PLACES[int(rng.integers(len(PLACES)))]
    taken = near_colours(background) | ({colour} if background == "plain" else set())
    colours = [str(name) for name in rng.permutation(COLOUR_NAMES) if name not in taken]
    shapes: tuple[Shape, ...]
    if rng.random() < 0.7:
        shapes = (_shape(rng, colours[0], radius=(0.17, 0.25), motions=MOTIONS),)
    else:
        axis: tuple[Motion, ...] = ("left", "right") if rng.random() < 0.5 else ("up", "down")
        shapes = tuple(
            _shape(rng, colours[i], radius=(0.13, 0.2), motions=(*axis, "still"), lane=lane)
            for i, lane in enumerate(rng.permutation([0.27, 0.73]))
        )
    return Scene(background=background, background_colour=colour, shapes=shapes)


def _shape(
    rng: np.random.Generator,
    colour: str,
    *,
    radius: tuple[float, float],
    motions: tuple[Motion, ...],
    lane: float | None = None,
) -> Shape:
    """A shape whose way fits into the picture; `lane` fixes the coordinate it does not move in."""
    size = float(rng.uniform(*radius))
    motion = motions[int(rng.integers(len(motions)))]
    way = 0.0 if motion == "still" else float(rng.uniform(0.25, 0.45))
    start = []
    across = any(name in motions for name in ("left", "right"))
    down = any(name in motions for name in ("up", "down"))
    lanes = (across and not down, down and not across)
    for along, fixed in zip(DIRECTION[motion], lanes, strict=True):
        low, high = size + max(0.0, -along * way), 1 - size - max(0.0, along * way)
        start.append(lane if fixed and lane is not None else float(rng.uniform(low, high)))
    return Shape(
        name=SHAPES[int(rng.integers(len(SHAPES)))],
        colour=colour,
        radius=size,
        row=start[0],
        column=start[1],
        motion=motion,
        speed=way / SECONDS,
    )
