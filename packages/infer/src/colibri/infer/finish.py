"""From latents on disk to the finished video: decode, write, record. Also `infer decode`."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.latents import read_latents
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.infer import device_profile, frame_steps, models
from colibri.infer.config import DecodeConfig, DType
from colibri.infer.decode import Frames, Say, decode
from colibri.infer.image import hash_pixels
from colibri.infer.models import Machine
from colibri.infer.outputs import Outputs, check_writable, is_done, writing
from colibri.infer.recipe import Made, Recipe, from_json, metadata, to_json
from colibri.infer.safety import NONE, Filters, filters_of

if TYPE_CHECKING:
    from torch import Tensor

CLIP = "clip"
"""Name of the one tensor in a render's latent file."""


def decode_file(path: Path, config: DecodeConfig, *, say: Say) -> Path:
    """Make the video of a render's latent file, beside it or where `config.out` says.

    UserError for a file that is damaged, no render's, or of another VAE than the model's, and for
    frames that a filter refuses.
    """
    from colibri.infer import light

    found = read_latents(path)
    recipe, _ = from_json(found.recipe, where=str(path))
    source = models.find_again(config.model, config.revision, recipe.model, say=say)
    say(source.line())
    recipe = replace(
        recipe,
        vae_dtype=config.vae_dtype or recipe.vae_dtype,
        decoder=light.find_decoder(config.decoder, source, say=say)
        if config.decoder
        else recipe.decoder,
        interpolate=frame_steps.find_interpolate(config.interpolate) or recipe.interpolate,
        upscale=frame_steps.find_upscale(config.upscale) or recipe.upscale,
    )
    filters = filters_of(recipe.safety)
    for line in filter(None, (filters.line(), frame_steps.describe(recipe))):
        say(line)
    machine = models.choose_machine(
        config.device, cast(DType, recipe.dtype), cast(DType, recipe.vae_dtype)
    )
    stem = path.name.removesuffix(".safetensors").removesuffix(".latents")
    outputs = Outputs(video=config.out or path.with_name(f"{stem}.mp4"))
    if outputs.video.suffix.lower() != ".mp4":
        raise UserError(f"--out {outputs.video} does not end in .mp4")
    if is_done(outputs, recipe):
        say(f"{outputs.video}  (there already)")
        return outputs.video
    check_writable(outputs.video.parent)
    model = light.load(source, machine, recipe.decoder, "vae")
    finish(
        *(model, machine, recipe, outputs),
        latents=path,
        mode=config.decode,
        filters=filters,
        say=say,
    )
    say(str(outputs.video))
    return outputs.video


def finish(
    model: wan.WanModel,
    machine: Machine,
    recipe: Recipe,
    outputs: Outputs,
    *,
    latents: Path,
    mode: str,
    filters: Filters = NONE,
    say: Say,
) -> Made:
    """The video of a latent file, with its recipe inside and as JSON beside it.

    UserError where the latents are of another VAE, or memory runs out in every way of decoding;
    `RefusedError` where a filter does not let the frames pass.
    """
    clip = read_latents(latents, vae_hash=model.vae_hash, codec=model.family.codec).latents[CLIP]
    try:
        frames, way = decode_clip(model, machine, clip, mode=mode, say=say)
    except UserError as error:
        raise UserError(
            f"{error.message}; the latents are kept", hint=f"finish with: infer decode {latents}"
        ) from None
    filters.check_frames(frames)
    made = made_of(model, machine, frames, way)
    with writing(outputs.video, hint=f"finish with: infer decode {latents}"):
        write_json_whole(outputs.recipe, to_json(recipe, made))
        write_video(  # last: it marks the render as done
            outputs.video,
            frame_steps.with_steps(frames, recipe),
            fps=Fraction(frame_steps.shown_fps(recipe)),
            metadata=metadata(recipe, made),
            exact=True,
        )
    return made


def decode_clip(
    model: wan.WanModel, machine: Machine, latents_BCTHW: "Tensor", *, mode: str, say: Say
) -> tuple[Frames, str]:
    """Frames and the mode they were decoded in; the transformer may leave its device meanwhile."""

    from colibri.infer import placement

    def make_room() -> None:
        if model.transformer is not None:
            placement.move(model.transformer, "cpu")

    placement.enter(model, "decode")
    try:
        return decode(
            *(model.vae, latents_BCTHW, model.family),
            mode=mode,
            begin=machine.plan.decode if machine.plan else "whole",
            say=say,
            make_room=make_room,
        )
    finally:
        waits = placement.way_of(model).vae_waits  # then it comes back when it is needed
        if model.transformer is not None and not waits:
            placement.move(model.transformer, machine.device)


def made_of(model: wan.WanModel, machine: Machine, frames: Frames, way: str) -> Made:
    """How `frames` were made, here and now."""
    import torch

    from colibri.infer import light, placement

    convolution: str | None = device_profile.convolution_of(machine.device)
    if isinstance(model.vae, light.Light):
        convolution = model.vae.convolution
    rounding = {"convolution": convolution} if convolution not in (None, "dense") else {}
    return Made(
        frames_sha256=hash_pixels(frames),
        decode=way,
        device=models.device_name(machine.device),
        threads=torch.get_num_threads(),
        versions=models.versions() | rounding | placement.rounding(model),
    )
