"""Decoding plans: whole, in chunks, streaming, in tiles; equal results where the plan is exact.

A causal decoder carries its cache from chunk to chunk. A non-causal one decodes windows that reach
beyond a chunk on both sides and drops the surplus: with the decoder's own reach as `halo` nothing
changes, with less there are seams, which `blend` softens. Knows no files.
"""

# B batch  C channels  T latent frames  F frames  H latent rows  W latent columns

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.wan.decoder import LatentStats


class Core(Protocol):
    """A decoder network."""

    @property
    def codec(self) -> Codec:
        """Frames a latent, pixels a latent, latent channels."""

    @property
    def causal(self) -> bool:
        """No frame needs a later latent, and a cache carries on from chunk to chunk."""

    @property
    def single_first(self) -> bool:
        """The first latent of a video gives one frame."""

    @property
    def reach(self) -> tuple[int, int] | None:
        """Latents before and after that a latent's frames depend on; None where unbounded."""

    @property
    def reach_space(self) -> int | None:
        """Rows or columns to each side; None where unbounded."""

    def __call__(self, latents: Tensor, cache: Any = None) -> Tensor:
        """Latents (B, C, T, H, W) to video (B, 3, F, rows, columns)."""

    def new_cache(self) -> Any:
        """Memory for one video, where the decoder is causal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a video is cut for decoding. The default decodes it whole."""

    chunk: int | None = None
    """Latents at once; None: all."""
    halo: int | None = None
    """Non-causal: latents decoded and dropped on each side of a chunk. None: the decoder's reach,
    which changes nothing. Less is cheaper and leaves seams."""
    blend: int = 0
    """Non-causal: latents over which two chunks are mixed linearly."""
    tile: int | None = None
    """Latent rows and columns at once, with a halo that changes nothing; None: all."""

    def __post_init__(self) -> None:
        for name in ("chunk", "tile"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise UserError(f"{name} has to be at least 1 latent, not {size}")
        if self.blend < 0 or (self.halo is not None and self.halo < 0):
            raise UserError("halo and blend cannot be negative")
        if self.chunk is not None and self.blend > self.chunk:
            raise UserError(f"blend ({self.blend}) cannot exceed chunk ({self.chunk})")


WHOLE = Plan()


@dataclass(kw_only=True)
class VideoDecoder:
    """Any decoder under one interface. Takes un-normalised latents, as diffusers' VAEs do."""

    core: Core
    stats: LatentStats | None = None
    """Of its latents, where its folder tells them."""
    teacher: dict[str, str] = field(default_factory=dict)
    """Id, revision and hash of the VAE whose latents it decodes, where its folder names it."""

    @property
    def codec(self) -> Codec:
        """Frames a latent, pixels a latent, latent channels."""
        return self.core.codec

    @property
    def causal(self) -> bool:
        """It can be streamed with a cache."""
        return self.core.causal

    @property
    def reach(self) -> tuple[int, int] | None:
        """Latents before and after that a latent's frames depend on."""
        return self.core.reach

    @torch.no_grad()
    def decode(self, latents: Tensor, plan: Plan = WHOLE) -> Tensor:
        """Latents (B, C, T, H, W) to unclamped video (B, 3, F, rows, columns), about [-1, 1].

        UserError for latents of another shape.
        """
        return torch.cat(list(self.stream(latents, plan)), dim=2)

    def stream(self, latents: Tensor | Iterable[Tensor], plan: Plan = WHOLE) -> Iterator[Tensor]:
        """Consecutive frames (B, 3, some, rows, columns) as they are ready.

        `latents` may come in pieces along time, as a generator makes them. Memory depends on the
        plan, not on the length.
        """
        pieces = iter([latents] if isinstance(latents, Tensor) else latents)
        call: Core = _Tiled(self.core, plan.tile) if plan.tile else self.core
        cut = _causal if self.core.causal else _windows
        return cut(call, pieces, plan)


def _causal(core: Core, pieces: Iterator[Tensor], plan: Plan) -> Iterator[Tensor]:
    if plan.blend or plan.halo:
        raise UserError("a causal decoder has no seams", hint="leave out halo and blend")
    cache = core.new_cache()
    for piece in pieces:
        for chunk in piece.split(plan.chunk or piece.shape[2], dim=2):
            with torch.no_grad():
                frames = core(chunk, cache)
            yield frames


def _windows(core: Core, pieces: Iterator[Tensor], plan: Plan) -> Iterator[Tensor]:
    assert core.reach is not None
    time = core.codec.time
    back, ahead = core.reach if plan.halo is None else (plan.halo, plan.halo)
    # A window's first latent gives one frame only: one more has to be dropped.
    back = max(back, 1) if core.single_first and time > 1 else back

    def first_frame(latent: int) -> int:
        return max(time * latent - (time - 1), 0) if core.single_first else time * latent

    kept: Tensor | None = None
    kept_from = start = 0
    tail: Tensor | None = None
    more = True
    while True:
        wanted = None if plan.chunk is None else start + plan.chunk
        while more and (
            kept is None or wanted is None or kept_from + kept.shape[2] < wanted + ahead + 1
        ):
            piece = next(pieces, None)
            more = piece is not None
            if piece is not None:
                kept = piece if kept is None else torch.cat([kept, piece], dim=2)
        if kept is None:
            raise UserError("there are no latents to decode")
        total = kept_from + kept.shape[2]
        stop = total if wanted is None else min(wanted, total)
        mixed = min(plan.blend, start)
        low, high = max(start - mixed - back, 0), min(stop + ahead, total)
        with torch.no_grad():
            video = core(kept[:, :, low - kept_from : high - kept_from])
        # Frame 0 of a window is the last frame of its first latent.
        frames = video[
            :, :, first_frame(start - mixed) - time * low : first_frame(stop) - time * low
        ]
        if tail is not None:
            count = tail.shape[2]
            ramp = torch.arange(1, count + 1, device=frames.device, dtype=frames.dtype)
            ramp = (ramp / (count + 1)).view(1, 1, -1, 1, 1)
            soft = torch.lerp(tail, frames[:, :, :count], ramp)
            frames = torch.cat([soft, frames[:, :, count:]], dim=2)
        if stop == total and not more:
            yield frames
            return
        held = first_frame(stop) - first_frame(stop - min(plan.blend, stop))
        tail = frames[:, :, frames.shape[2] - held :].clone() if held else None
        yield frames[:, :, : frames.shape[2] - held]
        start = stop
        keep_from = max(start - plan.blend - back, kept_from)
        kept, kept_from = kept[:, :, keep_from - kept_from :].clone(), keep_from


class _Tiled:
    """A decoder that is called on overlapping tiles in space; every tile has its own cache."""

    def __init__(self, core: Core, tile: int) -> None:
        if core.reach_space is None:
            raise UserError("this decoder cannot be cut in space", hint="leave out tile")
        self.core, self.tile, self.halo = core, tile, core.reach_space
        self.codec, self.causal, self.single_first = core.codec, core.causal, core.single_first
        self.reach, self.reach_space = core.reach, core.reach_space

    def new_cache(self) -> dict[tuple[int, int], Any]:
        """One cache a tile, by its place."""
        return {}

    def __call__(self, latents: Tensor, cache: dict[tuple[int, int], Any] | None = None) -> Tensor:
        """As the decoder itself would."""
        size, halo = self.codec.space, self.halo
        rows, columns = latents.shape[3:]
        bands = []
        for top in range(0, rows, self.tile):
            band = []
            for left in range(0, columns, self.tile):
                bottom, right = min(top + self.tile, rows), min(left + self.tile, columns)
                above, before = max(top - halo, 0), max(left - halo, 0)
                part = latents[:, :, :, above : bottom + halo, before : right + halo]
                own = None
                if cache is not None:
                    own = cache.setdefault((top, left), self.core.new_cache())
                video = self.core(part, own)
                y, x = (top - above) * size, (left - before) * size
                height, width = (bottom - top) * size, (right - left) * size
                band.append(video[..., y : y + height, x : x + width])
            bands.append(torch.cat(band, dim=4))
        return torch.cat(bands, dim=3)
