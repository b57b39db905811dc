"""Clips of tiny models for scoring: prompts in, 8-bit frames out, each clip with its own seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colibri.testbed.score import Pixels

if TYPE_CHECKING:
    from colibri.core import wan
    from colibri.core.schedule import FlowSchedule
    from torch import Tensor

BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is sampled."""

    sampler: str
    schedule: "FlowSchedule"
    guidance: float = 1.0


def own_way(model: "wan.WanModel", *, steps: int | None = None) -> Way:
    """As the model's folder says, but for the number of steps."""
    defaults = model.family.defaults
    schedule = model.sampling_schedule(steps=None if model.schedule else steps)
    return Way(sampler=defaults.sampler, schedule=schedule, guidance=defaults.guidance)


def sampled(
    model: "wan.WanModel",
    prompts: Sequence[str],
    *,
    way: Way,
    seed: int = 0,
    pictures: Sequence[Pixels] | None = None,
) -> "Iterator[tuple[int, Tensor, list[Any]]]":
    """Index of the first clip, latents and frames of each batch. Clip i has the seed `seed` + i.

    `pictures` are first frames (1, height, width, 3), one a prompt.
    """
    import torch
    from colibri.core.geometry import VideoShape
    from colibri.core.wan.decoder import (
        LatentStats,
        WanDecoder,
        decode_latents,
        encode_video,
        to_frames,
        to_pixels,
    )
    from colibri.core.wan.rollout import whole_clip
    from colibri.core.wan.sampler import seeds
    from colibri.core.wan.text import encode_text
    from colibri.testbed.small import FRAMES, SIDE

    shape = model.family.latent_shape(VideoShape(frames=FRAMES, height=SIDE, width=SIDE))
    text, null = (
        encode_text(
            model.tokenizer,
            model.text_encoder,
            list(words),
            max_tokens=model.family.defaults.text_tokens,
        )
        for words in (prompts, [model.family.defaults.negative_prompt])
    )
    stats, decoder = LatentStats.of(model.vae.config), WanDecoder(model.vae)
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        first = None
        if pictures is not None:
            first = encode_video(model.vae, torch.cat([to_pixels(one) for one in pictures[part]]))
        latents = whole_clip(
            model.transformer,
            text[part],
            shape=shape,
            schedule=way.schedule,
            generator=seeds(seed + start, len(prompts[part])),
            sampler=way.sampler,
            guidance=way.guidance,
            negative_BLD=null if way.guidance != 1 else None,
            first_BCTHW=first,
        )
        yield start, latents, list(to_frames(decode_latents(decoder, latents, stats)))


def folder_of(name: str) -> Path:
    """The folder of a model or decoder: a folder, `embedded:NAME`, or a hub id.

    UserError where there is none.
    """
    from colibri.core import wan
    from colibri.testbed.embedded import PREFIX, embedded_model

    if not name.startswith(PREFIX):
        return Path(name) if Path(name).is_dir() else wan.find_folder(name)
    return embedded_model(name)


def weights_hash(folder: Path) -> str:
    """SHA-256 over a folder's weights."""
    from colibri.testbed.train.family import family_hash

    return family_hash(folder)
