"""From flags and a model's defaults to one recipe a video; every check that needs no weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from colibri.core.errors import UserError
from colibri.core.geometry import VideoShape, swapped_size_hint
from colibri.infer import tuning
from colibri.infer.config import LookConfig
from colibri.infer.decode import Say
from colibri.infer.image import Frame, hash_pixels, read_image
from colibri.infer.jobs import Job
from colibri.infer.models import Machine, Source
from colibri.infer.recap import recaption
from colibri.infer.recipe import DecoderUse, PluginUse, Recipe, with_image
from colibri.infer.safety import NONE, Filters

N = TypeVar("N", int, float)

ALIASES = {"lcm": "consistency"}
"""Other names of samplers; diffusers calls the few-step one FlowMatchLCMScheduler."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One video to make: its recipe, and its first frame where it has one."""

    recipe: Recipe
    first: Frame | None


def make_recipes(
    config: LookConfig,
    jobs: Sequence[Job],
    source: Source,
    machine: Machine,
    *,
    decoder: DecoderUse | None = None,
    interpolate: tuple[PluginUse, ...] = (),
    upscale: tuple[PluginUse, ...] = (),
    filters: Filters = NONE,
    say: Say,
) -> tuple[Planned, ...]:
    """A recipe for every job, in order. UserError in one sentence for bad input, and for a prompt
    that a filter refuses."""
    for job in jobs:
        filters.check_prompt(job.prompt)
    video = check_size(config, source, say=say)
    loras = tuning.read_loras(config.lora)
    sampler, guidance = choose_sampler(config, source), choose_guidance(config, source)
    schedule = source.model().sampling_schedule(
        # A student keeps the schedule it was trained for where only its own defaults are repeated.
        sampler=None if sampler == source.family.defaults.sampler else sampler,
        steps=_positive("--steps", config.steps),
        shift=_positive("--shift", config.shift),
    )
    if any(job.image for job in jobs):
        check_takes_image(source)
    images: dict[Path | None, Frame | None] = {None: None}
    for job in jobs:
        if job.image not in images:
            images[job.image] = _first(job, video, say)
    default = source.family.defaults
    planned = []
    told = recaption(config.recap, source, jobs, machine, asked_model=config.recap_model, say=say)
    for job, caption in zip(jobs, told, strict=True):
        first = images[job.image]
        filters.check_prompt(caption.text)
        recipe = Recipe(
            prompt=job.prompt,
            prompt_used=caption.text,
            recap=caption.by,
            negative_prompt=_negative(job, default.negative_prompt, guidance),
            seed=job.seed,
            width=video.width,
            height=video.height,
            frames=video.frames,
            fps=_positive("--fps", config.fps) or default.fps,
            sampler=sampler,
            guidance=guidance,
            schedule=schedule.to_json(),
            dtype=machine.dtype,
            vae_dtype=machine.vae_dtype,
            image=None,
            image_sha256=None if first is None else hash_pixels(first),
            loras=loras,
            attention=tuning.choose_attention(config.attention, machine),
            compile=config.compile,
            model=source.use,
            decoder=decoder,
            interpolate=interpolate,
            upscale=upscale,
            safety=filters.uses,
        )
        planned.append(Planned(recipe=with_image(recipe), first=first))
    return tuple(planned)


def check_takes_image(source: Source) -> None:
    """UserError where the model makes videos from text only."""
    if not source.family.expand_timesteps:
        raise UserError(
            f"--model {source.asked} ({source.family.name}) makes no video from an image, only "
            "from text",
            hint="use infer t2v, or a model of the TI2V form",
        )


def check_size(config: LookConfig, source: Source, *, say: Say) -> VideoShape:
    """The video's size. UserError with the nearest one where codec or patch do not divide it."""
    default = source.family.video
    height, width = config.size or (default.height, default.width)
    frames = default.frames if config.frames is None else config.frames
    video = VideoShape(frames=frames, height=height, width=width)
    source.family.latent_shape(video)
    if hint := swapped_size_hint(height, width, source.family.sizes):
        say(hint)
    return video


def choose_sampler(config: LookConfig, source: Source) -> str:
    """The sampler's own name. UserError for one that is not known."""
    from colibri.core.wan.sampler import SAMPLERS

    asked = (config.sampler or source.family.defaults.sampler).lower()
    name = ALIASES.get(asked, asked)
    if name not in SAMPLERS:
        known = ", ".join((*SAMPLERS, *ALIASES))
        raise UserError(f"there is no sampler {asked!r}", hint=f"one of {known}")
    return name


def choose_guidance(config: LookConfig, source: Source) -> float:
    """The weight of classifier-free guidance; 1 is without."""
    guidance = config.guidance
    if guidance is None:
        return float(source.family.defaults.guidance)
    if not math.isfinite(guidance) or guidance < 0:
        raise UserError(f"--guidance {guidance} is not a number from 0 up")
    return float(guidance)


def describe(recipe: Recipe, machine: Machine, count: int) -> str:
    """What will be made, in one line."""
    flow = recipe.flow
    videos = "1 video" if count == 1 else f"{count} videos"
    guided = "no guidance" if recipe.guidance == 1 else f"guidance {recipe.guidance:g}"
    return (
        f"{videos}, {recipe.width}x{recipe.height}, {recipe.frames} frames at {recipe.fps}/s; "
        f"{recipe.sampler}, {flow.steps} steps, shift {flow.shift:g}, {guided}; "
        f"{machine.device}, {recipe.dtype}."
    )


def _first(job: Job, video: VideoShape, say: Say) -> Frame:
    assert job.image is not None
    first, remark = read_image(job.image, video.height, video.width)
    if remark:
        say(remark)
    return first


def _negative(job: Job, default: str, guidance: float) -> str:
    """Without guidance it plays no part, and two recipes shall not differ by it."""
    if guidance == 1:
        return ""
    return default if job.negative_prompt is None else job.negative_prompt


def _positive(flag: str, value: N | None) -> N | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UserError(f"{flag} {value} is not a positive number")
    return value
