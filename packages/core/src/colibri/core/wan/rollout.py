"""Whole-clip generation: text, and a first frame where there is one, to normalised latents."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule
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
