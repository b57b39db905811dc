"""Samples of the student during training, from the same noise each time, as one picture."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colibri.core import wan
from colibri.core.wan.decoder import LatentStats, WanDecoder, decode_latents, to_frames
from colibri.core.wan.rollout import whole_clip
from colibri.core.wan.sampler import seeds
from colibri.distill.roles import computing
from colibri.distill.setup import Setup

SHOWN = 6
"""Frames of a clip in the picture."""


class Validation:
    """The first rows of the data: text to video, and below image to video where frames are."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._rows = setup.encoded.rows[: setup.config.validate_rows]

    @torch.no_grad()
    def write(self, step: int) -> Path | None:
        """`OUT/samples/step-NNNNNNNN.png`: a clip a row of it; None in following processes."""
        setup, rows = self._setup, self._rows
        clips = []
        for given in (False, True):
            if given and not (setup.config.p_i2v and setup.encoded.with_frame.issuperset(rows)):
                continue
            batch = setup.encoded.batch(rows, given=(given,) * len(rows), device=setup.world.device)
            with (
                setup.roles.playing("student"),
                computing(setup.config.precision, setup.world.device.type),
            ):
                latents = whole_clip(
                    setup.roles.network("student"),
                    batch.text_BLD,
                    shape=setup.shape,
                    schedule=setup.schedule,
                    generator=seeds(setup.config.seed, len(rows)),
                    sampler="consistency",
                    first_BCTHW=batch.first_BCTHW if given else None,
                )
            clips.append(latents)
        if not setup.world.leads:
            return None
        path = setup.config.out / "samples" / f"step-{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self._picture(torch.cat(clips))).save(path)
        return path

    def _picture(self, latents_BCTHW: torch.Tensor) -> np.ndarray:
        vae = wan.load(self._setup.teacher, parts=("vae",)).vae.to(self._setup.world.device)
        stats, decoder = LatentStats.of(vae.config), WanDecoder(vae)
        lines = []
        for latents in latents_BCTHW.split(1):
            frames = to_frames(decode_latents(decoder, latents, stats))[0]
            chosen = np.linspace(0, len(frames) - 1, min(SHOWN, len(frames))).round().astype(int)
            lines.append(np.concatenate(frames[chosen], axis=1))
        return np.concatenate(lines, axis=0)
