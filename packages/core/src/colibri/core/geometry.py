"""Sizes of videos and of their latents, all derived: no token count stands as a number.

In text a size is width x height; in code it is (frames, height, width).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from colibri.core.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoShape:
    """Frames, height and width of a video in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """How a VAE compresses: frames a latent (after the first), pixels a latent, channels."""

    time: int
    space: int
    channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentShape:
    """Channels, latent frames, latent rows and columns."""

    channels: int
    frames: int
    height: int
    width: int

    @classmethod
    def of(
        cls, video: VideoShape, codec: Codec, patch: tuple[int, int, int] = (1, 1, 1)
    ) -> "LatentShape":
        """The latents of `video`, for a transformer with `patch` (frames, rows, columns).

        UserError names the dimension that does not divide, and the nearest that does.
        """
        if video.frames < 1 or (video.frames - 1) % codec.time:
            lower = max(video.frames - 1, 0) // codec.time * codec.time + 1
            raise UserError(
                f"{video.frames} frames do not fit a codec of {codec.time} frames a latent",
                hint=f"use {lower} or {lower + codec.time}",
            )
        rows, columns = codec.space * patch[1], codec.space * patch[2]
        for name, size, step in (("height", video.height, rows), ("width", video.width, columns)):
            if size < step or size % step:
                near = f"{_nearest(video.width, columns)}x{_nearest(video.height, rows)}"
                raise UserError(
                    f"{name} {size} is not a multiple of {step}", hint=f"the nearest size is {near}"
                )
        return cls(
            channels=codec.channels,
            frames=(video.frames - 1) // codec.time + 1,
            height=video.height // codec.space,
            width=video.width // codec.space,
        )

    def video(self, codec: Codec) -> VideoShape:
        """The video that these latents decode to; undoes `of`."""
        return VideoShape(
            frames=(self.frames - 1) * codec.time + 1,
            height=self.height * codec.space,
            width=self.width * codec.space,
        )

    def tokens(self, patch: tuple[int, int, int]) -> int:
        """Transformer tokens for a patch of (frames, rows, columns) latents."""
        frames, rows, columns = patch
        return (self.frames // frames) * (self.height // rows) * (self.width // columns)


def swapped_size_hint(height: int, width: int, known: Iterable[tuple[int, int]]) -> str | None:
    """A sentence when (height, width) is one of the `known` sizes turned round, else None."""
    known = tuple(known)
    if (height, width) in known or (width, height) not in known:
        return None
    return f"{width}x{height} is upright; sizes are width x height: did you mean {height}x{width}?"


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` as people write it -> (height, width) as code has it."""
    width, cross, height = text.lower().partition("x")
    if not cross or not width.isdigit() or not height.isdigit() or not int(width) * int(height):
        raise UserError(f"{text!r} is not a size", hint="write WIDTHxHEIGHT, for example 1280x704")
    return int(height), int(width)


def _nearest(size: int, step: int) -> int:
    return max(step, round(size / step) * step)
