"""A prompt in, a video of any length out, while it is being made: `infer long`.

A causal student makes block after block on a key cache of constant size; each is decoded, on a GPU
beside the next one's denoising, and appended to an MP4 that can be played. Latents, cache and video
so far are on disk: the same command again goes on where a killed one stopped, to the same frames.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colibri.core import wan
from colibri.core.shards import write_json_whole
from colibri.infer import models, tuning
from colibri.infer.blocks import BlockStore
from colibri.infer.decode import Say
from colibri.infer.denoise import encode_prompts
from colibri.infer.fragments import finished
from colibri.infer.image import Frame, write_png
from colibri.infer.long_config import LongConfig
from colibri.infer.long_recipe import Rollout, cache_bytes, describe, prepare
from colibri.infer.long_rollout import rolled
from colibri.infer.long_stream import Speed, Watch, stream_to
from colibri.infer.models import Machine, Source
from colibri.infer.outputs import check_writable, is_done, outputs_of, sweep, writing
from colibri.infer.recipe import Made, Recipe, metadata, read_video, to_json
from colibri.infer.safety import open_filters
from colibri.infer.stream import chained, decoded_blocks

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LongRendered:
    """One long video on disk."""

    video: Path
    recipe: Recipe
    made: Made
    speed: Speed | None
    """None where no block had to be made."""


def make_long(
    config: LongConfig,
    *,
    say: Say = log.info,
    watch: Watch = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> LongRendered:
    """Make the video that `config` asks for, or go on with it; one that is there is left alone.

    UserError in one sentence for bad input, a model that is not causal, for what a filter refuses,
    and where memory runs out.
    """
    begin = clock()
    filters = open_filters(config.safety)
    source, machine, recipe, first = prepare(config, filters, say=say)
    say(describe(recipe, machine))
    outputs = outputs_of(config.out, recipe)
    check_writable(outputs.video.parent)
    sweep(outputs)
    store = BlockStore(
        outputs.beside(".blocks"),
        fingerprint=recipe.fingerprint,
        codec=source.family.codec,
        vae_hash=recipe.model.vae,
    )
    growing = outputs.growing
    if is_done(outputs, recipe):
        say(f"{outputs.video}  (there already)")
        growing.unlink(missing_ok=True)
        if store.folder.exists():  # killed while clearing up
            store.clear(keep_latents=config.keep_latents)
        recipe, made = read_video(outputs.video)
        return LongRendered(video=outputs.video, recipe=recipe, made=made, speed=None)
    with store.alone(), writing(outputs.video, hint="the same command again goes on from here"):
        store.sweep()
        if first is not None and recipe.image is not None:
            write_png(outputs.video.with_name(recipe.image), first)
        scenes = Rollout.of(recipe).scenes
        embeddings = encode_prompts(source, machine, [scene.prompt_used for scene in scenes])
        model = load_student(source, machine, recipe)
        written, speed = stream_to(
            *(growing, store, model, recipe, embeddings, first),
            save_every_s=config.save_every_s,
            keep_latents=config.keep_latents,
            check=filters.check_frames,
            watch=watch,
            clock=clock,
            begin=begin,
        )
        made = made_of(written.hash, machine)
        write_json_whole(outputs.recipe, to_json(recipe, made))
        finished(growing, outputs.video, metadata=metadata(recipe, made))  # marks it as done
        growing.unlink()
    store.clear(keep_latents=config.keep_latents)
    if speed is not None:
        say(speed.text())
    say(str(outputs.video))
    return LongRendered(video=outputs.video, recipe=recipe, made=made, speed=speed)


def plan(config: LongConfig, *, say: Say = log.info) -> str:
    """What `make_long` would do. Loads no weights, only hashes them, and writes no video."""
    source, machine, recipe, _ = prepare(config, open_filters(config.safety), say=say)
    rollout = Rollout.of(recipe)
    causal, family = rollout.form, source.family
    steps = f"{recipe.flow.steps}" + (" + 1" if causal.past == "clean" else "")
    lines = [
        describe(recipe, machine),
        f"{rollout.blocks} blocks of {causal.block} latent frames (the first of "
        f"{causal.first_block}), {steps} model evaluations each; window "
        f"{causal.window or 'all'}, sink {causal.sink}",
        f"key cache {cache_bytes(family, recipe) / 1e9:.3f} GB"
        + (", the same for any length" if causal.window else ", growing with the length"),
    ]
    lines += [f"{scene.at_s:>8g} s  {scene.prompt_used}" for scene in rollout.scenes]
    weights = wan.measure(family, dtype=machine.dtype, vae_dtype=machine.vae_dtype)
    for part, need in weights.items():
        lines.append(f"{part:<14}{need.parameters:>16,} parameters{need.bytes / 1e9:>10.2f} GB")
    place = outputs_of(config.out, recipe).video
    return "\n".join([*lines, f"{place}{'  (there already)' if place.exists() else ''}"])


def remade(source: Source, machine: Machine, recipe: Recipe, first: Frame | None) -> Made:
    """Make a long video's frames again, one after the other, and write nothing: for replays."""
    scenes = Rollout.of(recipe).scenes
    embeddings = encode_prompts(source, machine, [scene.prompt_used for scene in scenes])
    model = load_student(source, machine, recipe)
    found = ""
    blocks = (one.latents_BCTHW for one in rolled(model, recipe, embeddings, first))
    for frames in decoded_blocks(model.vae, blocks, model.family):
        found = chained(found, frames)
    return made_of(found, machine)


def load_student(source: Source, machine: Machine, recipe: Recipe) -> wan.WanModel:
    """Transformer and VAE, with the LoRA files, attention and decoder of `recipe`."""
    from colibri.infer import light

    model = light.load(source, machine, recipe.decoder, "transformer", "vae")
    tuning.add_loras(model.transformer, recipe.loras)
    tuning.set_attention(model.transformer, recipe.attention)
    if recipe.compile:  # one form for all lengths, so that a resumed run computes with the same
        model.transformer.compile_repeated_blocks(dynamic=True)
    return model


def made_of(frames_hash: str, machine: Machine) -> Made:
    """How frames were made, here and now; `frames_hash` by `stream.chained`."""
    import torch

    return Made(
        frames_sha256=frames_hash,
        decode="stream",
        device=models.device_name(machine.device),
        threads=torch.get_num_threads(),
        versions=models.versions(),
    )
