"""Examples of a training, batched: clips, cached latents, or latents that a video model made."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colibri.core.wan.decoder import LatentStats
from colibri.vae.clips import Frames, RefusalLog, Sampler, open_source
from colibri.vae.config import TrainConfig
from colibri.vae.encode import Drawn, LatentCache, MadeLatents
from colibri.vae.setup import clip_shape
from colibri.vae.wan import WanCore


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one pass starts from; latents are un-normalised."""

    clip: Tensor | None = None
    """(B, 3, F, H, W) in [-1, 1]; None where a video model made the latents."""
    latents: Tensor | None = None
    """(B, C, T, H, W); None: the teacher has to encode."""
    kl: Tensor | None = None


class Examples:
    """Where the examples of a training come from; a step's are a function of seed and number."""

    def __init__(self, config: TrainConfig, teacher: WanCore, vae_hash: str) -> None:
        self.config = config
        source = open_source(config.clips, config.data_root, "train")
        self.refused = RefusalLog(config.out / "refused.jsonl")
        self.sampler = Sampler(
            source, frames=config.frames, crop=config.crop, seed=config.seed, refused=self.refused
        )
        stats = LatentStats.of(teacher.vae.config)
        self.cache = self.made = None
        if config.latents:
            self.cache = LatentCache(
                *(config.latents, source, stats),
                codec=teacher.codec,
                vae_hash=vae_hash,
                frames=config.frames,
                crop=config.crop,
                seed=config.seed,
                refused=self.refused,
            )
        if config.made:
            self.made = MadeLatents(
                *(config.made, stats),
                codec=teacher.codec,
                vae_hash=vae_hash,
                shape=clip_shape(config, teacher),
                seed=config.seed,
            )

    def steps(
        self, first: int, last: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, list[Batch]]]:
        """For each step its batches; the next ones are read meanwhile."""
        config = self.config

        def ask(step: int) -> list[list[Future[Frames | Drawn | Tensor]]]:
            # Numbered over processes and passes, so that a step's clips do not depend on how they
            # are shared out.
            draw = self._drawer(step)
            return [
                [
                    pool.submit(draw, step, (turn * world + rank) * config.batch + index)
                    for index in range(config.batch)
                ]
                for turn in range(config.accumulate)
            ]

        with ThreadPoolExecutor(max_workers=4) as pool:
            coming = ask(first) if first < last else []
            for step in range(first, last):
                now = coming
                coming = ask(step + 1) if step + 1 < last else []
                yield step, [to_batch([part.result() for part in turn]) for turn in now]

    def _drawer(self, step: int) -> Callable[[int, int], Any]:
        """Where the examples of a step come from; all of them from one place, so that it does not
        matter how they are batched."""
        if self.made is not None:
            # 2: not the numbers that `MadeLatents.draw` gives the first slot
            rng = np.random.default_rng([self.config.seed, step, 0, 2])
            if rng.random() < self.config.made_share:
                return self.made.draw
        return self.sampler.draw if self.cache is None else self.cache.draw


def to_batch(parts: list[Frames | Drawn | Tensor]) -> Batch:
    """Examples of one place together."""
    if all(isinstance(part, Tensor) for part in parts):
        return Batch(latents=torch.stack([part for part in parts if isinstance(part, Tensor)]))
    drawn = [part for part in parts if isinstance(part, Drawn)]
    if drawn:
        return Batch(
            clip=to_tensor([part.frames for part in drawn]),
            latents=torch.stack([part.latents for part in drawn]),
            kl=torch.tensor([part.kl for part in drawn]).mean(),
        )
    return Batch(clip=to_tensor([part for part in parts if isinstance(part, np.ndarray)]))


def to_tensor(clips: list[Frames]) -> Tensor:
    """uint8 (F, H, W, 3) each -> (B, 3, F, H, W) in [-1, 1]."""
    unit = torch.from_numpy(np.stack(clips)).float() / 127.5 - 1
    return unit.permute(0, 4, 1, 2, 3).contiguous()
