"""What a model is: form, defaults, schedule, what its weights need, and memory plans."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from colibri.core import wan
from colibri.infer import light
from colibri.infer.config import InfoConfig
from colibri.infer.decode import Say
from colibri.infer.models import Machine, Source, find_model
from colibri.infer.recipe import DecoderUse, ModelUse, Recipe

log = logging.getLogger(__name__)


def find(config: InfoConfig, *, say: Say = log.info) -> Source:
    """The model; of a family's name nothing is fetched, and its `folder` does not exist."""
    family = wan.FAMILIES.get(config.model or "")
    if family is None or Path(family.name).exists():
        return find_model(config.model, config.revision, say=say)
    nowhere = Path(f"no-folder-of-{family.name}")
    return Source(asked=family.name, revision=None, folder=nowhere, family=family, schedule=None)


def describe(source: Source, decoder: DecoderUse | None = None) -> str:
    """A table for people. Reads configs and file sizes; no weights but the decoder's are loaded."""
    family, default = source.family, source.family.defaults
    codec, shape = family.codec, family.latent_shape(family.video)
    latents = f"{shape.channels}x{shape.frames}x{shape.height}x{shape.width}"
    here = source.folder.exists()
    rows = [
        ("folder", str(source.folder) if here else f"none here; {family.repo or family.name}"),
        ("family", family.name),
        (
            "makes",
            "video from text, or from an image and text"
            if family.expand_timesteps
            else "video from text",
        ),
        ("size", f"{default.width}x{default.height}, {default.frames} frames at {default.fps}/s"),
        (
            "codec",
            f"{codec.time} frames, {codec.space}x{codec.space} pixels a latent of "
            f"{codec.channels} channels",
        ),
        ("latents", f"{latents}, {family.tokens(family.video):,} tokens"),
    ]
    if source.schedule is None:
        rows.append(
            ("sampling", f"{default.sampler}, {default.steps} steps, shift {default.shift:g}")
        )
    else:
        levels = ", ".join(f"{sigma:.4g}" for sigma in source.schedule.sigmas)
        rows.append(("sampling", f"{default.sampler}, trained for {source.schedule.steps} steps"))
        rows.append(("sigmas", f"{levels} (shift {source.schedule.shift:g})"))
    guided = "none" if default.guidance == 1 else f"{default.guidance:g}"
    rows.append(("guidance", guided))
    for part, need in wan.measure(family, dtype="bfloat16").items():
        kind = "float32" if part == "vae" else "bfloat16"
        said = f"{need.parameters:,} parameters; {need.bytes / 1e6:,.1f} MB as {kind}"
        if here:
            size = sum(path.stat().st_size for path in wan.part_files(source.folder, part))
            said += f"; {size / 1e6:,.1f} MB on disk"
        rows.append((part.replace("_", " "), said))
    if decoder is not None:
        rows.append(("decoder", light.describe(decoder)))
    return "\n".join(f"{name:<14}{value}" for name, value in rows)


def plans(source: Source, config: InfoConfig, decoder: DecoderUse | None = None) -> Iterator[str]:
    """A memory plan for each of `config.vram`. UserError for what is no number."""
    from colibri.infer import memory
    from colibri.infer.quantize import about_as

    machine = Machine(device=config.device, dtype=config.dtype, vae_dtype=config.vae_dtype)
    about = about_as(source.family, config.scheme) if config.scheme else None
    for asked in config.vram:
        budget = memory.budget_bytes(asked, config.device)
        assert budget is not None
        recipe = replace(recipe_of(source, config), decoder=decoder)
        plan = memory.make_plan(source, recipe, machine, budget, about=about)
        yield f"\n--vram {asked}: {plan.lines()}"


def recipe_of(source: Source, config: InfoConfig) -> Recipe:
    """As `infer t2v` would have it, without reading weights for their hashes."""
    default = source.family.defaults
    height, width = config.size or (default.height, default.width)
    return Recipe(
        prompt="",
        prompt_used="",
        recap="off",
        negative_prompt="",
        seed=0,
        width=width,
        height=height,
        frames=default.frames if config.frames is None else config.frames,
        fps=default.fps,
        sampler=default.sampler,
        guidance=default.guidance if config.guidance is None else config.guidance,
        schedule=source.model().sampling_schedule().to_json(),
        dtype=config.dtype,
        vae_dtype=config.vae_dtype,
        image=None,
        image_sha256=None,
        loras=(),
        attention=None,
        compile=False,
        model=ModelUse(
            source=source.asked,
            revision=None,
            family=source.family.name,
            text_encoder="",
            transformer="",
            vae="",
        ),
    )
