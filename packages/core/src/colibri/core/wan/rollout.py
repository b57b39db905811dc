"""Text, and a first frame where there is one, to normalised latents: a clip at once, or in blocks.

The same functions serve training and inference.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule, add_noise, x0_from_velocity
from colibri.core.wan.attention import Prompt
from colibri.core.wan.cache import KVCache, Store
from colibri.core.wan.causal import Text, block_velocity, extend, recached
from colibri.core.wan.family import Causal
from colibri.core.wan.sampler import (
    SAMPLERS,
    Generators,
    OnStep,
    Predict,
    Step,
    draw_noise,
    guided,
)
from colibri.core.wan.transformer import keep_first, velocity


@torch.no_grad()
def whole_clip(
    model: Any,
    text_BLD: Tensor,
    *,
    shape: LatentShape,
    schedule: FlowSchedule,
    generator: Generators,
    sampler: str = "unipc",
    guidance: float = 1.0,
    negative_BLD: Tensor | None = None,
    first_BCTHW: Tensor | None = None,
    per_token: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """Normalised latents (B, C, T, H, W) in float32 on the model's device, one clip a prompt.

    `guidance` is standard CFG, u + w (c - u); other than 1 it needs `negative_BLD`. `first_BCTHW`,
    the normalised latent of the first frame (T = 1, batch B or 1), makes it image to video as
    Wan2.2-TI2V does it: the clean frame in place and timestep 0 on its tokens at every step, and in
    the result. `per_token` as in `transformer.velocity`.

    The noise comes first from `generator`, then what the sampler draws.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"there is no sampler {sampler!r}", hint=f"one of {', '.join(SAMPLERS)}")
    batch = text_BLD.shape[0]
    size = (batch, shape.channels, shape.frames, shape.height, shape.width)
    first = None if first_BCTHW is None else _first(first_BCTHW, size).to(model.device)
    text_BLD = text_BLD.to(model.device)
    if negative_BLD is not None:
        negative_BLD = negative_BLD.to(model.device).expand_as(text_BLD)

    def predict(words_BLD: Tensor) -> Predict:
        def ask(x_BCTHW: Tensor, sigma: float, timestep: float) -> Tensor:
            return velocity(
                model,
                x_BCTHW if first is None else keep_first(x_BCTHW, first),
                sigma,
                words_BLD,
                timestep=timestep,
                clean_first=first is not None,
                per_token=per_token,
            )

        return ask

    latents = SAMPLERS[sampler](
        guided(
            predict(text_BLD), None if negative_BLD is None else predict(negative_BLD), guidance
        ),
        draw_noise(size, generator, device=model.device),
        schedule,
        generator=generator,
        on_step=on_step if on_step is None or first is None else _keeping(first, on_step),
    )
    return latents if first is None else keep_first(latents, first)


Noise = Callable[[int, int, tuple[int, ...]], Tensor]
"""(block, step, shape (B, C, T, H, W)) -> standard normal noise in the dtype to sample in."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Block:
    """A finished block of an endless clip."""

    index: int
    start: int
    """Its first latent frame, from the clip's beginning."""
    latents_BCTHW: Tensor
    """Normalised; with a graph behind it in training."""
    cache: KVCache
    """What the next block sees, this one included: a rollout goes on from it."""


def block_rollout(
    model: Any,
    text: Text,
    *,
    shape: LatentShape,
    causal: Causal,
    schedule: FlowSchedule,
    noise: Noise,
    blocks: int | None = None,
    first_BCTHW: Tensor | None = None,
    cache: KVCache | None = None,
    store: Store = "same",
    exit_step: int | None = None,
    train: bool = False,
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Iterator[Block]:
    """Block after block, each by few consistency steps on what came before; memory stays constant.

    Each step jumps to the noise-free estimate and puts fresh noise on it at the next level. Then a
    pass at level 0 writes the block's keys and values, as in Self-Forcing (arXiv 2506.08009); or
    those of the last step stay, where `causal.past` says so and no pass is needed for them.
    `blocks` is how many to make, None without end. Of `shape` the frames do not count.

    `first_BCTHW` are given clean latents (batch B or 1) that take the place of block 0. `cache`
    goes on where an earlier rollout ended. `store` is how a new cache keeps its numbers.

    Training ends every block at step `exit_step` (from 0, None: the last), and with `train` that
    step alone leaves a graph: none of the steps before it, and none through the cache. `around` is
    entered for each pass through the model (autocast, the choice of an adapter).

    UserError for a first frame that is not one block, and for an exit step that does not exist.
    """
    last = schedule.steps - 1 if exit_step is None else exit_step
    if not 0 <= last < schedule.steps:
        raise UserError(f"there is no step {last} in a schedule of {schedule.steps} steps")
    cache = KVCache(causal=causal, store=store) if cache is None else cache
    batch = (text.text_BLD if isinstance(text, Prompt) else text).shape[0]
    index = _blocks_in(cache)
    end = None if blocks is None else index + blocks
    while end is None or index < end:
        start = cache.frames
        count = causal.block if index else causal.first_block
        size = (batch, shape.channels, count, shape.height, shape.width)
        written = None
        if first_BCTHW is not None and index == 0:
            latents = _given(first_BCTHW, size).to(model.device)
        else:
            latents, written = _denoised(
                model, text, cache, size, schedule, noise, index, last, train, around
            )
        if written is None:
            drawn = functools.partial(noise, index, schedule.steps - 1)
            past = _Past.of(latents.detach(), causal, schedule, drawn)
            with torch.no_grad(), around():
                _, written = extend(
                    *(model, past.x_BCTHW, text, cache), sigma=past.sigma, timestep=past.timestep
                )
        cache = written
        yield Block(index=index, start=start, latents_BCTHW=latents, cache=cache)
        index += 1


@torch.no_grad()
def rewritten(
    model: Any,
    held_BCTHW: Tensor,
    text: Text,
    cache: KVCache,
    *,
    schedule: FlowSchedule,
    noise: Noise,
) -> KVCache:
    """A rollout's cache computed again for another text from the clean frames that it holds, as
    `causal.recached`, at the level at which its blocks see what is behind them."""
    drawn = functools.partial(noise, _blocks_in(cache), schedule.steps)
    past = _Past.of(held_BCTHW, cache.causal, schedule, drawn)
    return recached(*(model, past.x_BCTHW, text, cache), sigma=past.sigma, timestep=past.timestep)


def seeded_noise(
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Noise:
    """Noise that depends on a sample's seed, the block and the step alone.

    So a rollout that goes on after a kill, or a sample in another batch, gets the same.
    """

    def draw(block: int, step: int, size: tuple[int, ...]) -> Tensor:
        generators = []
        for seed in seeds:
            digest = hashlib.sha256(f"{seed} {block} {step}".encode()).digest()
            generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))
        return draw_noise(size, generators, device=device, dtype=dtype)

    return draw


def _denoised(
    model: Any,
    text: Text,
    cache: KVCache,
    size: tuple[int, ...],
    schedule: FlowSchedule,
    noise: Noise,
    index: int,
    last: int,
    train: bool,
    around: Callable[[], contextlib.AbstractContextManager[Any]],
) -> tuple[Tensor, KVCache | None]:
    """Noise-free estimate of a block after steps 0 to `last`; the cache with the block behind where
    the last step writes it."""
    x, written = noise(index, 0, size), None
    for step in range(last + 1):
        sigma, timestep = schedule.sigmas[step], schedule.timesteps[step]
        with torch.set_grad_enabled(train and step == last), around():
            if cache.causal.past == "last_step" and step == schedule.steps - 1:
                predicted, written = extend(model, x, text, cache, sigma=sigma, timestep=timestep)
            else:
                predicted = block_velocity(model, x, sigma, text, cache, timestep=timestep)
            estimate = x0_from_velocity(x, predicted, sigma)
        if step < last:
            x = add_noise(estimate, noise(index, step + 1, size), schedule.sigmas[step + 1])
    return estimate, written


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Past:
    """Finished frames as later blocks see them."""

    x_BCTHW: Tensor
    sigma: float = 0.0
    timestep: float | None = None

    @classmethod
    def of(
        cls,
        clean_BCTHW: Tensor,
        causal: Causal,
        schedule: FlowSchedule,
        noise: Callable[[tuple[int, ...]], Tensor],
    ) -> "_Past":
        if causal.past == "clean":
            return cls(x_BCTHW=clean_BCTHW)
        sigma = schedule.sigmas[-2]
        x = add_noise(clean_BCTHW, noise(tuple(clean_BCTHW.shape)).to(clean_BCTHW), sigma)
        return cls(x_BCTHW=x, sigma=sigma, timestep=schedule.timesteps[-1])


def _blocks_in(cache: KVCache) -> int:
    if cache.frames == 0:
        return 0
    blocks, rest = divmod(cache.frames - cache.causal.first_block, cache.causal.block)
    if blocks < 0 or rest:
        raise UserError(f"the cache ends inside a block, after {cache.frames} frames")
    return blocks + 1


def _given(first_BCTHW: Tensor, size: tuple[int, ...]) -> Tensor:
    if first_BCTHW.ndim != 5 or tuple(first_BCTHW.shape[1:]) != size[1:]:
        raise UserError(
            f"the given latents have the shape {tuple(first_BCTHW.shape)}, the first block "
            f"(batch, {', '.join(map(str, size[1:]))})",
            hint="an image starts a clip of a model whose first block is 1 frame",
        )
    return first_BCTHW.expand(size[0], -1, -1, -1, -1)


def _keeping(first_BCTHW: Tensor, on_step: OnStep) -> OnStep:
    """`on_step` with the given frame in what it is shown."""

    def show(step: Step) -> None:
        x, x0 = (keep_first(seen, first_BCTHW) for seen in (step.x_BCTHW, step.x0_BCTHW))
        on_step(replace(step, x_BCTHW=x, x0_BCTHW=x0))

    return show


def _first(first_BCTHW: Tensor, size: tuple[int, ...]) -> Tensor:
    expected = (size[1], 1, *size[3:])
    if first_BCTHW.ndim != 5 or tuple(first_BCTHW.shape[1:]) != expected:
        raise UserError(
            f"the first frame's latent has the shape {tuple(first_BCTHW.shape)}, the clip needs "
            f"(batch, {', '.join(map(str, expected))})"
        )
    return first_BCTHW.float().expand(size[0], -1, -1, -1, -1)
