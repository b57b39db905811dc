"""From a rollout to a growing MP4: each block kept, decoded, written, and its time taken.

Goes on where an earlier run stopped. Knows nothing of commands and of how a recipe came about.
"""

# B batch  C channels  T latent frames  H W latent rows, columns

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm  # type: ignore[import-untyped]

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan.family import Causal
from colibri.infer.blocks import BlockStore, Written
from colibri.infer.decode import Frames, is_out_of_memory
from colibri.infer.fragments import GrowingVideo
from colibri.infer.image import Frame
from colibri.infer.long_recipe import Rollout
from colibri.infer.long_rollout import rolled, state_of
from colibri.infer.recipe import Recipe, metadata
from colibri.infer.stream import Beside, chained, decoded_blocks, decoder_reach, own_stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast a run was, with decoding, compressing and writing to disk."""

    frames: int
    """Of this run: fewer than the video's where it went on from a killed one."""
    first_frame_s: float
    """From weights in memory to the first block on the disk."""
    from_start_s: float
    """From the beginning of the command to there."""
    frames_per_s: float
    """After that; of all where there was one block."""

    def text(self) -> str:
        """One line for people."""
        return (
            f"First frame after {self.first_frame_s:.2f} s ({self.from_start_s:.1f} s with "
            f"loading), then {self.frames_per_s:.2f} frames/s, decoding and writing included."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockWritten:
    """What `watch` hears after each block: it can be played now."""

    growing: Path
    blocks: int
    """Of the video so far."""
    frames: int
    """Of the video so far."""
    cache_bytes: int
    """Of the key cache after the block."""


Watch = Callable[[BlockWritten], object]
"""Hears each `BlockWritten`, in the writing thread; what it raises stops the render."""


def stream_to(
    growing: Path,
    store: BlockStore,
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "Mapping[str, Tensor]",
    first: Frame | None,
    *,
    save_every_s: float = 60.0,
    keep_latents: bool = False,
    beside: bool | None = None,
    check: Callable[[Frames], object] = lambda _: None,
    watch: Watch = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    begin: float | None = None,
) -> tuple[Written, Speed | None]:
    """Roll `recipe` out into a growing MP4, from where `store` says that an earlier run stopped.

    `embeddings` (1, tokens, width) are by prompt. `beside` decodes and writes in a thread of its
    own while denoising goes on; None: as `overlaps` says. What `check` raises for a block's frames
    stops the render before they are written. `begin` is the clock when the command
    began. The speed is None where nothing was left to do. UserError where memory runs out, and for
    a damaged or foreign store.
    """
    start = clock()
    found = _Found.of(store, recipe, model)
    video = GrowingVideo(growing, fps=recipe.fps, metadata=metadata(recipe))
    video.cut(found.written.bytes)
    writer = _Writer(video, store, model, recipe, found, check=check, watch=watch, clock=clock)
    bar = tqdm(
        total=recipe.frames, initial=found.written.frames, desc="video", unit="frame", disable=None
    )

    def pieces() -> "Iterator[Piece]":
        """Blocks that are not in the video yet, each on disk before it is decoded."""
        for index in range(found.written.blocks, found.cached):
            yield Piece(index=index, latents_BCTHW=store.read_block(index))
        rolling = rolled(
            *(model, recipe, embeddings, first),
            cached=found.cached,
            state=found.state,
            given=map(store.read_block, range(found.cached, found.made)),
        )
        saved, saved_at = found.cached, start
        for one in rolling:
            piece = Piece(
                index=one.index,
                latents_BCTHW=one.latents_BCTHW.cpu(),
                cache_bytes=one.cache.nbytes,
            )
            if piece.index >= found.made:
                store.write_block(piece.index, piece.latents_BCTHW)
            if piece.index >= found.written.blocks:
                yield piece
            if clock() - saved_at >= save_every_s:
                store.write_cache(piece.index + 1, state_of(one))
                saved, saved_at = piece.index + 1, clock()
            if not keep_latents:
                store.forget(min(saved, writer.needs()))
            bar.update(writer.written.frames - bar.n)

    try:
        with bar:
            if overlaps(model.vae.device) if beside is None else beside:
                with Beside(writer.work) as other:
                    for piece in pieces():
                        other.hand(piece)
            else:
                writer.work(pieces())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"memory ran out after {writer.written.blocks} blocks, which are kept",
            hint="use a smaller --size or --window, --cache int8, or --dtype bfloat16",
        ) from None
    assert writer.written.frames == recipe.frames
    return writer.written, writer.speed(start, start if begin is None else begin)


def overlaps(device: "torch.device") -> bool:
    """Whether decoding beside denoising gains time: not where both want the same cores."""
    return device.type != "cpu"


def warm_start(causal: Causal, block: int, reach: int) -> int:
    """The block to decode from, so that the frames of `block` come out as in one stream.

    `reach` is `stream.decoder_reach`.
    """
    if block == 0:
        return 0
    latents = causal.first_block + (block - 1) * causal.block - reach
    return 0 if latents < causal.first_block else (latents - causal.first_block) // causal.block + 1


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A block of latents on its way to the video."""

    index: int
    latents_BCTHW: "Tensor"
    """On the CPU."""
    cache_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _Found:
    """How far an earlier run came."""

    written: Written
    cached: int
    """Blocks in the saved key cache."""
    state: "dict[str, Tensor]"
    made: int
    """Blocks whose latents are there, or were."""

    @classmethod
    def of(cls, store: BlockStore, recipe: Recipe, model: wan.WanModel) -> "_Found":
        """UserError where latents that are needed are missing."""
        written = store.written()
        cached, state = store.read_cache(str(model.transformer.device))
        there = store.blocks()
        made = max(written.blocks, cached, *(index + 1 for index in there[-1:]))
        form = Rollout.of(recipe).form
        needed = min(cached, warm_start(form, written.blocks, decoder_reach(model.vae)))
        if missing := sorted(set(range(needed, made)) - set(there)):
            raise UserError(
                f"{store.folder} lacks the latents of block {missing[0]}",
                hint="remove the folder to begin again",
            )
        return cls(written=written, cached=cached, state=state, made=made)


class _Writer:
    """The part beside the denoising: decode, compress, append, and say that it is there."""

    def __init__(
        self,
        video: GrowingVideo,
        store: BlockStore,
        model: wan.WanModel,
        recipe: Recipe,
        found: _Found,
        *,
        check: Callable[[Frames], object],
        watch: Watch,
        clock: Callable[[], float],
    ) -> None:
        self.written = self._before = found.written
        self._video, self._store, self._model, self._recipe = video, store, model, recipe
        self._check, self._watch, self._clock = check, watch, clock
        self._causal = Rollout.of(recipe).form
        self._reach = decoder_reach(model.vae)
        self._first = self._last = (0.0, 0)
        self._cache_bytes = 0

    def needs(self) -> int:
        """The first block whose latents a run after a kill would decode again."""
        return warm_start(self._causal, self.written.blocks, self._reach)

    def work(self, pieces: "Iterator[Piece]") -> None:
        """Append the frames of every piece; those of earlier blocks are decoded only."""
        start = self.needs()
        done = self.written.blocks

        def latents() -> "Iterator[Tensor]":
            yield from map(self._store.read_block, range(start, done))
            for piece in pieces:
                self._cache_bytes = piece.cache_bytes
                yield piece.latents_BCTHW

        with own_stream(str(self._model.vae.device)):
            stream = decoded_blocks(self._model.vae, latents(), self._model.family)
            for index, frames in enumerate(stream, start=start):
                if index >= done:
                    self._append(index, frames)

    def speed(self, start: float, begin: float) -> Speed | None:
        """Of this run; None where it wrote nothing."""
        (first_s, first_frames), (last_s, last_frames) = self._first, self._last
        if last_frames == 0:
            return None
        frames, seconds = last_frames - first_frames, last_s - first_s
        if not frames:
            frames, seconds = last_frames - self._before.frames, last_s - start
        return Speed(
            frames=last_frames - self._before.frames,
            first_frame_s=first_s - start,
            from_start_s=first_s - begin,
            frames_per_s=frames / max(seconds, 1e-9),
        )

    def _append(self, index: int, frames: Frames) -> None:
        self._check(frames)
        size = self._video.append(frames, index=index, start=self.written.frames)
        self.written = Written(
            blocks=index + 1,
            frames=self.written.frames + len(frames),
            bytes=size,
            hash=chained(self.written.hash, frames),
        )
        self._store.commit(self.written)
        self._last = (self._clock(), self.written.frames)
        self._first = self._first if self._first[1] else self._last
        self._watch(
            BlockWritten(
                growing=self._video.path,
                blocks=self.written.blocks,
                frames=self.written.frames,
                cache_bytes=self._cache_bytes,
            )
        )
