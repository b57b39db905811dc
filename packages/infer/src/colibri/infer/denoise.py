"""From recipes to normalised latents: text, first frame, and the steps of the sampler.

Each prompt and each clip is computed alone, so that a video is the same in any batch.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm  # type: ignore[import-untyped]

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer import models, tuning
from colibri.infer.decode import Say, free_memory, is_out_of_memory
from colibri.infer.image import Frame
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.sampler import OnStep

log = logging.getLogger(__name__)


def encode_prompts(
    source: Source, machine: Machine, prompts: Iterable[str], *, say: Say = log.info
) -> "dict[str, Tensor]":
    """Embeddings (1, tokens, width) on the CPU by prompt; the encoder is gone afterwards.

    As the plan of `machine` says; when memory runs out, block by block, then on the CPU.
    """
    from colibri.infer import memory

    ways = memory.TEXT_WAYS if not machine.device.startswith("cpu") else memory.TEXT_WAYS[:-1]
    begin = ways.index(machine.plan.text) if machine.plan else 0
    for index, way in enumerate(ways[begin:]):
        if index:
            free_memory()  # here, where the failed call's tensors are gone with its traceback
            say(f"Memory ran out in reading the prompt; trying again {_SAID[way]}.")
        try:
            return _encode_prompts(source, machine, dict.fromkeys(prompts), way)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    raise UserError("memory ran out in every way of reading the prompt")


_SAID = {"stream": "block by block from the host (the same numbers)", "cpu": "on the CPU (slow)"}


def _encode_prompts(
    source: Source, machine: Machine, prompts: Iterable[str], way: str
) -> "dict[str, Tensor]":
    model = load_encoder(source, machine, way)
    return {prompt: encode_prompt(model, prompt) for prompt in prompts}


def load_encoder(source: Source, machine: Machine, way: str) -> wan.WanModel:
    """Tokenizer and text encoder, the latter in one of `memory.TEXT_WAYS`."""
    home = machine if way == "device" else replace(machine, device="cpu")
    model = models.load(source, home, "tokenizer", "text_encoder")
    if way == "stream":
        from colibri.infer.placement import stream_encoder

        stream_encoder(model.text_encoder, machine.device)
    return model


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


def load_denoiser(
    source: Source, machine: Machine, recipe: Recipe, *, with_vae: bool = True
) -> wan.WanModel:
    """Transformer and VAE, with the LoRA files, attention and compiling of `recipe`, placed."""
    from colibri.infer import device_profile, light, placement, quantized

    if recipe.loras and quantized.is_quantized(source.folder / "transformer"):
        raise UserError(
            "--lora cannot be put on a quantised model", hint="give its source as --model"
        )
    # Onto the host first where not all of it shall be on the device at once.
    waits = machine.plan is not None and machine.plan.way.vae_waits
    home = replace(machine, device="cpu") if waits else machine
    parts = ("transformer", "vae") if with_vae else ("transformer",)
    model = light.load(source, home, recipe.decoder, *parts)
    if with_vae and recipe.decoder is None:
        convolution = device_profile.convolution_of(machine.device)  # not that of the host
        device_profile.set_convolutions(model.vae, convolution)
    tuning.add_loras(model.transformer, recipe.loras)
    tuning.set_attention(model.transformer, recipe.attention)
    if recipe.compile:
        model.transformer.compile_repeated_blocks()
    placement.place(model, machine)
    return model


def denoise(
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "dict[str, Tensor]",
    first: Frame | None,
    *,
    on_step: "OnStep | None" = None,
    say: Say = log.info,
) -> "Tensor":
    """Normalised latents (1, C, T, H, W) in float32.

    When memory runs out it begins again in a way that needs less, and stays there; UserError after
    the last.
    """
    from colibri.infer import memory, placement

    while True:
        try:
            return sample(model, recipe, embeddings, encode_first(model, first), on_step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_memory()  # here, where the failed call's tensors are gone with its traceback
        way = placement.step_down(model)
        if way is None:
            break
        how = way.text(cpu=way in memory.CPU_WAYS)
        say(f"Memory ran out in denoising; beginning again: {how}.")
    raise UserError(
        f"memory ran out while denoising {recipe.width}x{recipe.height}, {recipe.frames} frames",
        hint="use a smaller --size, fewer --frames, or --dtype bfloat16",
    )


def encode_first(model: wan.WanModel, first: Frame | None) -> "Tensor | None":
    """Normalised latents of a first frame, by the model's own VAE."""
    from colibri.core.wan.decoder import encode_video, to_pixels
    from colibri.infer import placement

    if first is None:
        return None
    placement.enter(model, "encode")
    return encode_video(model.vae, to_pixels(first[None]))


def sample(
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "dict[str, Tensor]",
    first_BCTHW: "Tensor | None",
    on_step: "OnStep | None",
) -> "Tensor":
    """As `denoise`, from an encoded first frame, and once."""
    import torch

    from colibri.core.wan.rollout import whole_clip
    from colibri.infer import placement

    placement.enter(model, "denoise")
    return whole_clip(
        model.transformer,
        embeddings[recipe.prompt_used],
        shape=model.family.latent_shape(recipe.video),
        schedule=recipe.flow,
        generator=torch.Generator().manual_seed(recipe.seed),
        sampler=recipe.sampler,
        guidance=recipe.guidance,
        negative_BLD=None if recipe.guidance == 1 else embeddings[recipe.negative_prompt],
        first_BCTHW=first_BCTHW,
        per_token=model.family.expand_timesteps,  # as diffusers' pipeline has it, bit for bit
        on_step=on_step,
    )


@contextlib.contextmanager
def step_bar(recipe: Recipe) -> "Iterator[OnStep]":
    """A progress bar on a terminal, for `denoise`'s `on_step`."""
    with tqdm(total=recipe.flow.steps, desc="denoise", unit="step", disable=None) as bar:
        yield lambda _: bar.update()
