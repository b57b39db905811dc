"""Sizes of videos and of their latents, all derived: no token count stands as a number."""

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
    def of(cls, video: VideoShape, codec: Codec) -> "LatentShape":
        """The latents of `video`; UserError names the dimension that the codec cannot divide."""
        if (video.frames - 1) % codec.time:
            lower = (video.frames - 1) // codec.time * codec.time + 1
            raise UserError(
                f"{video.frames} frames do not fit a codec of {codec.time} frames a latent",
                hint=f"use {lower} or {lower + codec.time}",
            )
        for name, size in (("height", video.height), ("width", video.width)):
            if size % codec.space:
                raise UserError(f"{name} {size} is not a multiple of {codec.space}")
        return cls(
            channels=codec.channels,
            frames=(video.frames - 1) // codec.time + 1,
            height=video.height // codec.space,
            width=video.width // codec.space,
        )

    def tokens(self, patch: tuple[int, int, int]) -> int:
        """Transformer tokens for a patch of (frames, rows, columns) latents."""
        frames, rows, columns = patch
        return (self.frames // frames) * (self.height // rows) * (self.width // columns)


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` as people write it -> (height, width) as code has it."""
    width, cross, height = text.lower().partition("x")
    if not cross or not width.isdigit() or not height.isdigit() or not int(width) * int(height):
        raise UserError(f"{text!r} is not a size", hint="write WIDTHxHEIGHT, for example 1280x704")
    return int(height), int(width)
