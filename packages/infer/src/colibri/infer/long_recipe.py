"""What a long video is to be: model, blocks, prompts and settings, checked and in a recipe.

Every check that needs no weights is made here, before any is loaded.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from colibri.core import wan
from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.geometry import VideoShape, swapped_size_hint
from colibri.core.wan.family import Causal
from colibri.infer import models, tuning
from colibri.infer.decode import Say
from colibri.infer.image import Frame, hash_pixels, read_image
from colibri.infer.jobs import job_of
from colibri.infer.long_config import LongConfig, Store, Switch
from colibri.infer.models import Machine, Source
from colibri.infer.prompts_at import PromptAt, blocks_of, read_prompts_at
from colibri.infer.recap import recaption
from colibri.infer.recipe import Recipe, with_image
from colibri.infer.safety import Filters
from colibri.testbed.embedded import LONG, PREFIX

MOST_POSITIONS = 1024
"""Latent frames that Wan's rotary embedding counts, where a config does not say (diffusers'
`rope_max_seq_len`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One prompt of a long video, as its recipe keeps it."""

    at_s: float
    block: int
    """With which it begins, from 0."""
    prompt: str
    prompt_used: str
    recap: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The table `long` of a recipe: what decides the frames of a video made in blocks."""

    causal: dict[str, Any]
    blocks: int
    store: Store
    """How the key cache keeps its numbers."""
    switch: Switch
    scenes: tuple[Scene, ...]

    @property
    def form(self) -> Causal:
        """Blocks, sink and window."""
        return from_table(Causal, self.causal, where="the recipe's causal form")

    def scene(self, block: int) -> Scene:
        """The prompt of a block."""
        return [scene for scene in self.scenes if scene.block <= block][-1]

    @classmethod
    def of(cls, recipe: Recipe) -> "Rollout":
        """That of a long video's recipe."""
        assert recipe.long is not None
        return from_table(cls, recipe.long, where="the recipe's table 'long'")


def prepare(
    config: LongConfig, filters: Filters, *, say: Say
) -> tuple[Source, Machine, Recipe, Frame | None]:
    """Model, machine, recipe and first frame; every check that needs no weights."""
    source = models.find_model(config.model or PREFIX + LONG, config.revision, say=say)
    say(source.line())
    if filters.uses:
        say(filters.line())
    causal = causal_of(config, source)
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    recipe, first = make_recipe(config, source, machine, causal, filters, say=say)
    return source, machine, recipe, first


def causal_of(config: LongConfig, source: Source) -> Causal:
    """The model's causal form with what the flags change. UserError for a model that has none."""
    causal = source.family.causal
    if causal is None or source.schedule is None:
        lacks = "is not a causal student" if causal is None else "has no few-step schedule"
        raise UserError(
            f"--model {source.asked} ({source.family.name}) {lacks}, it cannot make a video in "
            "blocks",
            hint="use infer t2v, or a model that distill trained to be causal",
        )
    if config.window is not None:
        causal = replace(causal, window=config.window)
    return causal if config.sink is None else replace(causal, sink=config.sink)


def make_recipe(
    config: LongConfig,
    source: Source,
    machine: Machine,
    causal: Causal,
    filters: Filters,
    *,
    say: Say,
) -> tuple[Recipe, Frame | None]:
    """The recipe and the first frame. UserError in one sentence for bad input."""
    from colibri.infer import light

    default, family = source.family.defaults, source.family
    fps = default.fps if config.fps is None else config.fps
    for flag, value in (("--seconds", config.seconds), ("--fps", fps)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} {value} is not a positive number")
    if not config.save_every_s >= 0:
        raise UserError(f"--save-every-s {config.save_every_s} is not a number from 0 up")
    video, blocks = _length(config, source, causal, fps)
    if hint := swapped_size_hint(video.height, video.width, family.sizes):
        say(hint)
    first = None
    if config.image is not None:
        if causal.first_block != 1:
            raise UserError(
                f"--model {source.asked} begins with a block of {causal.first_block} latent "
                "frames, an image is one",
                hint="leave --image out",
            )
        first, remark = read_image(config.image, video.height, video.width)
        if remark:
            say(remark)
    if default.guidance != 1:
        say(f"The folder asks for guidance {default.guidance:g}; blocks are made without.")
    decoder = light.find_decoder(config.decoder, source, say=say)
    scenes = _scenes(config, source, machine, causal, fps, blocks, filters, say=say)
    rollout = Rollout(
        causal=to_table(causal),
        blocks=blocks,
        store=config.cache,
        switch=config.switch,
        scenes=scenes,
    )
    assert source.schedule is not None
    recipe = Recipe(
        prompt=scenes[0].prompt,
        prompt_used=scenes[0].prompt_used,
        recap=scenes[0].recap,
        negative_prompt="",
        seed=config.seed,
        width=video.width,
        height=video.height,
        frames=video.frames,
        fps=fps,
        sampler="consistency",
        guidance=1.0,
        schedule=source.schedule.to_json(),
        dtype=machine.dtype,
        vae_dtype=machine.vae_dtype,
        image=None,
        image_sha256=None if first is None else hash_pixels(first),
        loras=tuning.read_loras(config.lora),
        attention=tuning.choose_attention(config.attention, machine),
        compile=config.compile,
        model=source.use,
        long=to_table(rollout),
        decoder=decoder,
        safety=filters.uses,
    )
    return with_image(recipe), first


def describe(recipe: Recipe, machine: Machine) -> str:
    """What will be made, in one line."""
    rollout = Rollout.of(recipe)
    scenes = "1 prompt" if len(rollout.scenes) == 1 else f"{len(rollout.scenes)} prompts"
    return (
        f"1 video, {recipe.width}x{recipe.height}, {recipe.frames} frames "
        f"({recipe.frames / recipe.fps:.2f} s) at {recipe.fps}/s in {rollout.blocks} blocks; "
        f"{scenes}, {recipe.flow.steps} steps a block; {machine.device}, {recipe.dtype}."
    )


def cache_bytes(family: wan.ModelFamily, recipe: Recipe) -> int:
    """Memory of the key cache once it is full."""
    rollout, config = Rollout.of(recipe), family.transformer
    causal = rollout.form
    latents = family.latent_shape(recipe.video)
    kept = latents.frames
    if causal.window is not None:
        kept = min(kept, causal.sink + causal.window - causal.block)
    tokens = replace(latents, frames=kept).tokens(family.patch)
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    number = 1 if rollout.store != "same" else 4 if recipe.dtype == "float32" else 2
    a_head = width * number + (4 if rollout.store != "same" else 0)
    return int(2 * config["num_layers"] * tokens * heads * a_head)


def _length(config: LongConfig, source: Source, causal: Causal, fps: int) -> tuple[VideoShape, int]:
    """The video's shape, whole blocks of at least the wanted length, and how many blocks."""
    family, default = source.family, source.family.defaults
    wanted = max(1, math.ceil(config.seconds * fps - 1e-6))
    latents = math.ceil((wanted - 1) / family.codec.time) + 1
    blocks = 1 + max(0, math.ceil((latents - causal.first_block) / causal.block))
    total = causal.first_block + (blocks - 1) * causal.block
    longest = int(family.transformer.get("rope_max_seq_len", MOST_POSITIONS))
    seen = total if causal.window is None else min(total, causal.sink + causal.window)
    if seen > longest:
        raise UserError(
            f"a block would see {seen} latent frames, the model has positions for {longest}",
            hint="use fewer --seconds or --window N"
            if causal.window is None
            else "use a smaller --window or --sink",
        )
    height, width = config.size or (default.height, default.width)
    video = VideoShape(frames=(total - 1) * family.codec.time + 1, height=height, width=width)
    family.latent_shape(video)
    return video, blocks


def _scenes(
    config: LongConfig,
    source: Source,
    machine: Machine,
    causal: Causal,
    fps: int,
    blocks: int,
    filters: Filters,
    *,
    say: Say,
) -> tuple[Scene, ...]:
    if (config.prompt is None) == (config.prompts_at is None):
        raise UserError("one of --prompt and --prompts-at is needed")
    if config.prompts_at is not None:
        prompts = read_prompts_at(config.prompts_at)
    else:
        prompts = (PromptAt(at_s=0.0, prompt=config.prompt or "", where="--prompt"),)
    places = blocks_of(
        prompts, causal=causal, codec_time=source.family.codec.time, fps=fps, blocks=blocks
    )
    jobs = [job_of(one.prompt, config.seed, where=one.where) for one in prompts]
    for job in jobs:
        filters.check_prompt(job.prompt)
    told = recaption(config.recap, source, jobs, machine, asked_model=config.recap_model, say=say)
    for caption in told:
        filters.check_prompt(caption.text)
    return tuple(
        Scene(at_s=at.at_s, block=place, prompt=job.prompt, prompt_used=to.text, recap=to.by)
        for at, place, job, to in zip(prompts, places, jobs, told, strict=True)
    )
