"""What decoding a clip holds at its fullest, counted on the meta device. No memory is used."""

import torch

from colibri.core import wan
from colibri.core.geometry import LatentShape
from colibri.core.wan import dryrun
from colibri.core.wan.decoder import decode_stream
from colibri.core.wan.family import ModelFamily

ALIKE = 3
"""Latent frames after which a stream holds no more."""


def decoding_bytes(family: ModelFamily, shape: LatentShape) -> int:
    """Of one clip in float32 by the model's VAE, part after part: its weights and what it makes."""
    vae = wan.build_meta(family, "vae").float()
    frames = min(shape.frames, ALIKE)
    size = (1, shape.channels, frames, shape.height, shape.width)

    def run() -> None:
        for _ in decode_stream(vae, torch.empty(size, device="meta")):
            pass

    held = dryrun.peak_bytes(run, "cuda")
    return held + sum(weight.nbytes for weight in vae.parameters())
