"""Prompts in, videos out: the whole job, readable from top to bottom.

A video's latents are on disk before its frames are decoded, and every file appears whole or not at
all: the same command again goes on where a killed one stopped.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.latents import read_latents, write_latents
from colibri.infer import frame_steps, models, together
from colibri.infer.config import I2vConfig, RenderConfig
from colibri.infer.decode import Say
from colibri.infer.denoise import denoise, needed_prompts, step_bar
from colibri.infer.finish import CLIP, finish
from colibri.infer.image import write_png
from colibri.infer.jobs import Job, jobs_of
from colibri.infer.kept import Kept
from colibri.infer.models import Machine
from colibri.infer.outputs import Outputs, check_writable, is_done, outputs_of, sweep, writing
from colibri.infer.preview import Previewer
from colibri.infer.recap import AUTO, OFF, RULES
from colibri.infer.recipe import Made, Recipe, from_json, read_video, to_json
from colibri.infer.safety import Filters, RefusedError, open_filters
from colibri.infer.settings import Planned, check_takes_image, describe, make_recipes
from colibri.infer.together import Team

if TYPE_CHECKING:
    from colibri.core.wan.sampler import OnStep, Step

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One video, and how far it is."""

    planned: Planned
    outputs: Outputs
    state: Literal["new", "denoised", "done"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """One video on disk."""

    video: Path
    recipe: Recipe
    made: Made
    new: bool
    """False where it was there before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """How far a render is."""

    stage: Literal["load", "denoise", "decode"]
    step: int = 0
    """Steps that are done."""
    steps: int = 0
    preview: Path | None = None
    """A picture of the video so far, where there is a new one."""


Watch = Callable[[Moment], object]
"""Hears each `Moment`; what it raises stops the render."""


def generate(
    config: RenderConfig,
    *,
    say: Say = log.info,
    watch: Watch = lambda _: None,
    kept: Kept | None = None,
    team: Team | None = None,
) -> tuple[Rendered, ...]:
    """Make every video that `config` asks for; those that are there already are left alone.

    `kept` holds embeddings and weights from one call to the next. With `team` this is the first of
    several processes. UserError in one sentence for bad input, for what a filter refuses, and where
    memory runs out in every way.
    """
    from colibri.infer import light
    from colibri.infer.memory import plan_for

    if team is not None:
        team.take_device(config.device)
    kept = kept or Kept()
    filters = kept.filters(config.safety)
    source = models.find_model(config.model, config.revision, say=say)
    say(source.line())
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    planned = _recipes(config, _jobs(config, source), source, machine, filters, say=say)
    say(describe(planned[0].recipe, machine, len(planned)))
    preview = config.preview
    if preview and filters.see_frames:
        say("No preview: the filter sees frames, which a preview would show before.")
        preview = 0
    machine = plan_for(config.vram, source, planned[0].recipe, machine, say=say)
    if team is not None:
        machine = team.check(source, planned[0].recipe, machine, config.vram, say=say)
    tasks = find_tasks(config, planned, say=say)

    new = [task for task in tasks if task.state == "new"]
    if any(task.state != "done" for task in tasks):
        watch(Moment(stage="load"))
    if new:
        recipe = new[0].planned.recipe
        if team is not None:
            team.tell(together.Load(source=source, machine=machine, recipe=recipe))
        prompts = [prompt for task in new for prompt in needed_prompts(task.planned.recipe)]
        embeddings = kept.embeddings(source, machine, prompts, say=say)
        model = kept.denoiser(source, machine, recipe)
        if team is not None:
            team.share(model, machine)
    elif any(task.state == "denoised" for task in tasks):
        model = light.load(source, machine, planned[0].recipe.decoder, "vae")

    rendered, refused = [], 0
    for task in tasks:
        recipe, outputs = task.planned.recipe, task.outputs
        if task.state == "done":
            say(f"{outputs.video}  (there already)")
            _clear(outputs, config)  # of a render killed while clearing up
            recipe, made = read_video(outputs.video)
            rendered.append(Rendered(video=outputs.video, recipe=recipe, made=made, new=False))
            continue
        begin = time.perf_counter()
        try:
            if task.state == "new":
                watch(Moment(stage="denoise", steps=recipe.flow.steps))
                previewer = Previewer(model, outputs.preview, preview, say=say)
                with step_bar(recipe) as tick:

                    def on_step(step: "Step", tick: "OnStep" = tick) -> None:
                        tick(step)
                        watch(_moment(step, previewer(step)))  # noqa: B023 (called within this turn)

                    given = (model, recipe, embeddings, task.planned.first)
                    if team is None:
                        latents = denoise(*given, on_step=on_step, say=say)
                    else:
                        latents = together.denoise(team, *given, on_step=on_step)
                with writing(outputs.latents):
                    if task.planned.first is not None and recipe.image is not None:
                        write_png(outputs.video.with_name(recipe.image), task.planned.first)
                    write_latents(
                        outputs.latents,
                        {CLIP: latents},
                        codec=source.family.codec,
                        vae_hash=recipe.model.vae,
                        recipe=to_json(recipe),
                    )
            watch(Moment(stage="decode"))
            made = finish(
                *(model, machine, recipe, outputs),
                latents=outputs.latents,
                mode=config.decode,
                filters=filters,
                say=say,
            )
        except RefusedError as error:
            if not config.keep_latents:
                outputs.latents.unlink()
            if len(tasks) == 1:
                raise
            say(f"Seed {recipe.seed}, {recipe.prompt[:80]!r}: {error}.")
            refused += 1
            continue
        finally:
            outputs.preview.unlink(missing_ok=True)
        _clear(outputs, config)
        say(f"{outputs.video}  ({time.perf_counter() - begin:.1f} s)")
        rendered.append(Rendered(video=outputs.video, recipe=recipe, made=made, new=True))
    if refused:
        raise UserError(f"{refused} of {len(tasks)} videos were refused")
    return tuple(rendered)


def find_tasks(config: RenderConfig, planned: tuple[Planned, ...], *, say: Say) -> list[Task]:
    """Where each video goes and how far it is. Removes what killed runs left unfinished."""
    tasks = []
    for one in planned:
        outputs = outputs_of(config.out, one.recipe, count=len(planned))
        check_writable(outputs.video.parent)
        sweep(outputs)
        state: Literal["new", "denoised", "done"] = "new"
        if is_done(outputs, one.recipe):
            state = "done"
        elif _has_latents(outputs, one.recipe, say):
            state = "denoised"
            say(f"{outputs.latents} is there already: it only has to be decoded.")
        tasks.append(Task(planned=one, outputs=outputs, state=state))
    return tasks


def plan(config: RenderConfig, *, say: Say = log.info) -> str:
    """What `generate` would do. Loads no weights, only hashes them, and writes no video."""
    source = models.find_model(config.model, config.revision, say=say)
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    rewritten = config.recap not in (AUTO, OFF, RULES)
    if rewritten:  # by a language model, which is not loaded for a plan
        config = replace(config, recap=OFF)
    filters = open_filters(config.safety)
    planned = _recipes(config, _jobs(config, source), source, machine, filters, say=say)
    recipe = planned[0].recipe
    shape = source.family.latent_shape(recipe.video)
    latents = "x".join(map(str, (shape.channels, shape.frames, shape.height, shape.width)))
    asked = recipe.flow.steps * (1 if recipe.guidance == 1 else 2)
    lines = [
        source.line(),
        describe(recipe, machine, len(planned)),
        f"latents {latents}, {source.family.tokens(recipe.video):,} tokens, "
        f"{asked} model evaluations a video",
    ]
    weights = wan.measure(source.family, dtype=machine.dtype, vae_dtype=machine.vae_dtype)
    for part, need in weights.items():
        lines.append(f"{part:<14}{need.parameters:>16,} parameters{need.bytes / 1e9:>10.2f} GB")
    for one in planned:
        place = outputs_of(config.out, one.recipe, count=len(planned)).video
        there = "  (there already)" if place.exists() else ""
        lines.append("a video of the rewritten prompt" if rewritten else f"{place}{there}")
    from colibri.infer.memory import plan_for

    if (memory := plan_for(config.vram, source, recipe, machine).plan) is not None:
        lines.insert(3 + len(weights), memory.lines())
    return "\n".join(lines)


def _recipes(
    config: RenderConfig,
    jobs: tuple[Job, ...],
    source: models.Source,
    machine: Machine,
    filters: Filters,
    *,
    say: Say,
) -> tuple[Planned, ...]:
    """Recipes with what is around the model, which is said."""
    from colibri.infer import light

    if filters.uses:
        say(filters.line())
    planned = make_recipes(
        *(config, jobs, source, machine),
        decoder=light.find_decoder(config.decoder, source, say=say),
        interpolate=frame_steps.find_interpolate(config.interpolate),
        upscale=frame_steps.find_upscale(config.upscale),
        filters=filters,
        say=say,
    )
    if after := frame_steps.describe(planned[0].recipe):
        say(after)
    return planned


def _jobs(config: RenderConfig, source: models.Source) -> tuple[Job, ...]:
    if isinstance(config, I2vConfig):
        check_takes_image(source)  # before a missing image is asked for
    if config.preview < 0:
        raise UserError(f"--preview {config.preview} is not a number of steps", hint="0 is never")
    return jobs_of(config)


def _clear(outputs: Outputs, config: RenderConfig) -> None:
    """Remove what nobody needs once the video is there."""
    outputs.preview.unlink(missing_ok=True)
    if not config.keep_latents:
        outputs.latents.unlink(missing_ok=True)


def _moment(step: "Step", preview: Path | None) -> Moment:
    return Moment(stage="denoise", step=step.index + 1, steps=step.steps, preview=preview)


def _has_latents(outputs: Outputs, recipe: Recipe, say: Say) -> bool:
    """True where the latents of just this recipe are there, whole."""
    if not outputs.latents.exists():
        return False
    try:
        found = read_latents(outputs.latents)
        same, _ = from_json(found.recipe, where=str(outputs.latents))
    except UserError as error:
        say(f"Rendering again: {error.message}.")
        return False
    if same.fingerprint != recipe.fingerprint:
        raise UserError(
            f"{outputs.latents} holds another render that is not finished",
            hint=f"infer decode {outputs.latents}, or choose another --out",
        )
    return True
