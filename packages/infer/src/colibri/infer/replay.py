"""Make a video's frames again from the recipe inside it, and say whether they are the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from colibri.core.errors import UserError
from colibri.infer import long, models
from colibri.infer.config import DType, ReplayConfig
from colibri.infer.decode import Say
from colibri.infer.denoise import denoise, encode_prompts, load_denoiser, needed_prompts, step_bar
from colibri.infer.finish import decode_clip, made_of
from colibri.infer.image import Frame, hash_pixels
from colibri.infer.recipe import Made, ModelUse, Recipe, read_video


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """The outcome of a replay."""

    identical: bool
    frames: int
    recipe: Recipe
    before: Made
    now: Made

    def text(self) -> str:
        """One line for people; where frames differ, what else is different."""
        if self.identical:
            after = " as decoded" if self.recipe.interpolate or self.recipe.upscale else ""
            hashed = self.now.frames_sha256[:16]
            return f"Identical: {self.frames} frames{after}, SHA-256 {hashed}."
        return "The frames are NOT the same. " + (
            f"Different here: {'; '.join(self.differences())}."
            if self.differences()
            else "Nothing recorded is different here."
        )

    def differences(self) -> list[str]:
        """What the video was made with and this machine has not."""
        old, new = self.before, self.now
        pairs = [("device", old.device, new.device), ("threads", old.threads, new.threads)]
        pairs += [("decoding", old.decode, new.decode)]
        names = (*new.versions, *(name for name in old.versions if name not in new.versions))
        pairs += [
            (name, old.versions.get(name, "not"), new.versions.get(name, "not")) for name in names
        ]
        return [f"{name} {before} then, {now} now" for name, before, now in pairs if before != now]


def replay(video: Path, config: ReplayConfig, *, say: Say) -> Replayed:
    """Render `video`'s recipe again with its own settings; writes nothing.

    UserError where the model, a LoRA file or the first frame is not the one that was used.
    """
    import torch

    recipe, before = read_video(video)
    source = models.find_again(config.model, config.revision, recipe.model, say=say)
    say(source.line())
    _check_model(source.use, recipe)
    if recipe.decoder is not None and config.decoder is not None:
        recipe = replace(recipe, decoder=replace(recipe.decoder, source=config.decoder))
    machine = models.choose_machine(
        config.device, cast(DType, recipe.dtype), cast(DType, recipe.vae_dtype)
    )
    first = _first(video, recipe)
    if machine.device.startswith("cpu"):
        torch.set_num_threads(before.threads)
    if recipe.long is not None:
        return _compared(recipe, before, long.remade(source, machine, recipe, first))
    embeddings = encode_prompts(source, machine, needed_prompts(recipe))
    model = load_denoiser(source, machine, recipe)
    with step_bar(recipe) as on_step:
        latents = denoise(model, recipe, embeddings, first, on_step=on_step)
    frames, way = decode_clip(model, machine, latents, mode=before.decode, say=say)
    return _compared(recipe, before, made_of(model, machine, frames, way))


def _compared(recipe: Recipe, before: Made, now: Made) -> Replayed:
    return Replayed(
        identical=now.frames_sha256 == before.frames_sha256,
        frames=recipe.frames,
        recipe=recipe,
        before=before,
        now=now,
    )


def _check_model(found: ModelUse, recipe: Recipe) -> None:
    for part in ("text_encoder", "transformer", "vae"):
        if getattr(found, part) != getattr(recipe.model, part):
            raise UserError(
                f"the {part.replace('_', ' ')} of {found.source} is not the one that the video was "
                "made with",
                hint="pass --model with the folder, or --revision",
            )


def _first(video: Path, recipe: Recipe) -> Frame | None:
    """The first frame, kept beside the video."""
    if recipe.image is None:
        return None
    path = video.with_name(recipe.image)
    try:
        with Image.open(path) as opened:
            first = np.array(opened.convert("RGB"))
    except OSError:
        raise UserError(
            f"the first frame {path} is missing or damaged", hint="keep it beside the video"
        ) from None
    if hash_pixels(first) != recipe.image_sha256:
        raise UserError(f"{path} is not the first frame that the video was made with")
    return first
