"""From recipes to normalised latents: text, first frame, and the steps of the sampler.

Each prompt and each clip is computed alone, so that a video is the same in any batch.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm  # type: ignore[import-untyped]

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer import models, tuning
from colibri.infer.image import Frame
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.sampler import OnStep


def encode_prompts(source: Source, machine: Machine, prompts: Iterable[str]) -> "dict[str, Tensor]":
    """Embeddings (1, tokens, width) on the CPU by prompt; the encoder is gone afterwards."""
    model = models.load(source, machine, "tokenizer", "text_encoder")
    return {prompt: encode_prompt(model, prompt) for prompt in dict.fromkeys(prompts)}


def encode_prompt(model: wan.WanModel, prompt: str) -> "Tensor":
    """Embedding (1, tokens, width) on the CPU."""
    from colibri.core.wan.text import encode_text

    tokens = model.family.defaults.text_tokens
    return encode_text(model.tokenizer, model.text_encoder, [prompt], max_tokens=tokens).cpu()


def needed_prompts(recipe: Recipe) -> tuple[str, ...]:
    """The texts whose embeddings `denoise` asks for."""
    if recipe.guidance == 1:
        return (recipe.prompt_used,)
    return recipe.prompt_used, recipe.negative_prompt


def load_denoiser(source: Source, machine: Machine, recipe: Recipe) -> wan.WanModel:
    """Transformer and VAE, with the LoRA files, attention and compiling of `recipe`."""
    model = models.load(source, machine, "transformer", "vae")
    tuning.add_loras(model.transformer, recipe.loras)
    tuning.set_attention(model.transformer, recipe.attention)
    if recipe.compile:
        model.transformer.compile_repeated_blocks()
    return model


def denoise(
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "dict[str, Tensor]",
    first: Frame | None,
    *,
    on_step: "OnStep | None" = None,
) -> "Tensor":
    """Normalised latents (1, C, T, H, W) in float32. UserError when memory is out."""
    import torch

    from colibri.core.wan.decoder import encode_video, to_pixels
    from colibri.core.wan.rollout import whole_clip
    from colibri.infer.decode import is_out_of_memory

    try:
        return whole_clip(
            model.transformer,
            embeddings[recipe.prompt_used],
            shape=model.family.latent_shape(recipe.video),
            schedule=recipe.flow,
            generator=torch.Generator().manual_seed(recipe.seed),
            sampler=recipe.sampler,
            guidance=recipe.guidance,
            negative_BLD=None if recipe.guidance == 1 else embeddings[recipe.negative_prompt],
            first_BCTHW=None if first is None else encode_video(model.vae, to_pixels(first[None])),
            per_token=model.family.expand_timesteps,  # bit for bit as diffusers' pipeline
            on_step=on_step,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise UserError(
        f"memory ran out while denoising {recipe.width}x{recipe.height}, {recipe.frames} frames",
        hint="use a smaller --size, fewer --frames, or --dtype bfloat16",
    )


@contextlib.contextmanager
def step_bar(recipe: Recipe) -> "Iterator[OnStep]":
    """A progress bar on a terminal, for `denoise`'s `on_step`."""
    with tqdm(total=recipe.flow.steps, desc="denoise", unit="step", disable=None) as bar:
        yield lambda _: bar.update()
