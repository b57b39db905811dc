"""Decoded frames made more and larger: interpolation and upscaling, built in or one's own.

Frames go through as a stream, so that no second copy of a video is in memory. The built-in ones
are plain and learn nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from colibri.core.errors import UserError
from colibri.infer.image import Frame
from colibri.infer.plugins import find_plugin
from colibri.infer.recipe import PluginUse, Recipe

FrameStep = Callable[[Iterator[Frame]], Iterator[Frame]]
"""Takes and gives uint8 frames (height, width, 3), RGB, in order."""


def lanczos(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Twice as wide and high."""
    for frame in frames:
        size = (2 * frame.shape[1], 2 * frame.shape[0])
        yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def blend(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The mean of two neighbours between them: what moves is seen twice, half as strong."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            mean = (before.astype(np.uint16) + frame + 1) // 2
            yield mean.astype(np.uint8)
        yield frame
        before = frame


UPSCALE: dict[str, FrameStep] = {"lanczos": lanczos}
INTERPOLATE: dict[str, FrameStep] = {"blend": blend}


def find_upscale(names: Sequence[str]) -> tuple[PluginUse, ...]:
    """The steps of `--upscale`. UserError for one that is not known or cannot be imported."""
    return tuple(_find("--upscale", name, UPSCALE)[1] for name in names)


def find_interpolate(names: Sequence[str]) -> tuple[PluginUse, ...]:
    """The steps of `--interpolate`. UserError for one that is not known or cannot be imported."""
    return tuple(_find("--interpolate", name, INTERPOLATE)[1] for name in names)


def describe(recipe: Recipe) -> str:
    """What happens after decoding, in one line; empty where nothing does."""
    said = []
    if recipe.interpolate:
        names = ", ".join(use.name for use in recipe.interpolate)
        said.append(f"interpolated by {names} to {shown_fps(recipe)} frames/s")
    if recipe.upscale:
        said.append(f"enlarged by {', '.join(use.name for use in recipe.upscale)}")
    return f"Decoded frames are {' and '.join(said)}." if said else ""


def shown_fps(recipe: Recipe) -> int:
    """Frames a second of the video as it is written."""
    return recipe.fps * 2 ** len(recipe.interpolate)


def with_steps(frames: Iterable[Frame], recipe: Recipe) -> Iterator[Frame]:
    """`frames` as they are written: interpolated first, since they are smaller then.

    UserError for a step that is not the recipe's, or gives what no video can be made of.
    """
    stream, count = iter(frames), recipe.frames
    for use in recipe.interpolate:
        count = 2 * count - 1
        stream = _counted(_step("--interpolate", use, INTERPOLATE)(stream), count, use.name)
    for use in recipe.upscale:
        stream = _checked(_step("--upscale", use, UPSCALE)(stream), use.name)
    return stream


def _step(flag: str, use: PluginUse, known: Mapping[str, FrameStep]) -> FrameStep:
    step, found = _find(flag, use.name, known)
    if found != use:
        raise UserError(
            f"{flag} {use.name} is not what it was when the render began",
            hint=f"name it anew with {flag}",
        )
    return step


def _find(flag: str, name: str, known: Mapping[str, FrameStep]) -> tuple[FrameStep, PluginUse]:
    if name in known:
        return known[name], PluginUse(name=name, sha256=None)
    if ":" not in name:
        raise UserError(f"there is no {flag} {name}", hint=f"{', '.join(known)}, or MODULE:NAME")
    found, use = find_plugin(flag, name)
    if not callable(found):
        raise UserError(f"{flag} {name} is no function of a stream of frames")
    return found, use


def _counted(frames: Iterator[Frame], wanted: int, name: str) -> Iterator[Frame]:
    made = 0
    for frame in frames:
        made += 1
        yield frame
    if made != wanted:
        raise UserError(
            f"--interpolate {name} gave {made} frames; with one between each two they are {wanted}"
        )


def _checked(frames: Iterator[Frame], name: str) -> Iterator[Frame]:
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UserError(
                f"--upscale {name} gave {frame.dtype} of shape {frame.shape}",
                hint="expected uint8 (height, width, 3)",
            )
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            raise UserError(
                f"--upscale {name} gave {frame.shape[1]}x{frame.shape[0]}; a video's size is even"
            )
        yield frame
