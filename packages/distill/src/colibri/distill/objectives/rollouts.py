"""How the student makes the clips that losses are asked of: whole, in blocks, or without end.

An axis of its own: any loss takes any rollout's clips. Rows of `ROLLOUTS`; the loop asks for a turn
and knows no more of them.
"""

# B batch  C channels  T latent frames  H W latent rows, columns

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from colibri.core.wan.cache import KVCache
from colibri.core.wan.rollout import Noise
from colibri.distill.config import TrainConfig
from colibri.distill.objectives.base import Net, Round
from colibri.distill.objectives.simulate import simulate


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One micro-batch's rollout."""

    prompts: int
    """The update at whose places in the data the prompts are."""
    make: Callable[[Round], Tensor]
    """The clip (B, C, T, H, W)."""
    held: int = 0
    """Its leading frames that an earlier round made."""


class Rollout:
    """A rollout that begins anew in every round; what a checkpoint has to hold of it is nothing."""

    def __init__(self, make: Callable[[Round], Tensor]) -> None:
        self._make = make

    def turn(self, net: Net, update: int, micro: int) -> Turn:
        """What micro-batch `micro` of a network's `update`-th update does."""
        return Turn(prompts=update, make=self._make)

    def tensors(self) -> dict[str, Tensor]:
        """What the next rounds go on from, by name."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo `tensors`."""


def whole(round: Round) -> Tensor:
    """Backward simulation of a whole clip."""
    return simulate(
        round.players,
        round.batch,
        round.draws,
        round.schedule,
        exit_step=round.exit_step,
        train=round.net == "student",
        dtype=round.dtype,
    )


def in_blocks(round: Round) -> Tensor:
    """Self-Forcing (arXiv 2506.08009): block after block on the student's own clean past.

    All blocks leave their trajectory at the round's exit step, which alone has a graph; a block's
    keys and values are written without one.
    """
    assert round.causal is not None
    blocks = len(round.causal.blocks(round.batch.shape.frames))
    made, _ = _roll(round, blocks, None)
    return made


class Stream(Rollout):
    """Clips longer than the teacher's: each round adds blocks with the cache kept from the last,
    and gives the newest frames, as many as the teacher takes (LongLive, arXiv 2509.22622).

    Only what the round added has a gradient and is in losses. Student and critic have clips of
    their own. The window's first latent frame is one of four video frames, where the teacher knows
    first frames of one: it is held, so no loss is on it.
    """

    def __init__(self, config: TrainConfig, *, frames: int) -> None:
        self._config, self._frames = config, frames
        self._clips: dict[str, _Clip] = {}

    def turn(self, net: Net, update: int, micro: int) -> Turn:
        """Rounds of a clip follow each other in the updates of its network."""
        settings = self._config.stream
        clip, index = divmod(update, settings.rounds)
        switches = settings.switch > 0
        switched = switches and index >= settings.switch
        added = settings.blocks * self._config.causal.block
        return Turn(
            prompts=(2 * clip + int(switched)) if switches else clip,
            held=0 if index == 0 else self._frames - added,
            make=lambda round: self._next(
                round,
                f"{net}/{micro}",
                fresh=index == 0,
                switch=switched and index == settings.switch,
            ),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Latents and caches of the clips that are under way."""
        named: dict[str, Tensor] = {}
        for key, clip in self._clips.items():
            named[f"{key}/latents"] = clip.latents_BCTHW
            named |= {f"{key}/cache/{name}": value for name, value in clip.cache.state().items()}
        return named

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo `tensors`; they are on the run's device."""
        self._clips = {}
        for name, latents in tensors.items():
            if not name.endswith("/latents"):
                continue
            key = name.removesuffix("/latents")
            prefix = f"{key}/cache/"
            state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            cache = KVCache(causal=self._config.causal).restored(state)
            self._clips[key] = _Clip(latents_BCTHW=latents, cache=cache)

    def _next(self, round: Round, key: str, *, fresh: bool, switch: bool) -> Tensor:
        if fresh:
            blocks = len(self._config.causal.blocks(self._frames))
            made, cache = _roll(round, blocks, None)
            self._clips[key] = _Clip(latents_BCTHW=made.detach(), cache=cache)
            return made
        before = self._clips[key]
        cache = before.cache
        if switch:
            held = _held(before)
            cache = round.players.rewritten(
                *(round.batch.text_BLD, held, cache), schedule=round.schedule, noise=_noise(round)
            )
        made, cache = _roll(round, self._config.stream.blocks, cache)
        together = torch.cat([before.latents_BCTHW, made], dim=2)
        self._clips[key] = _Clip(latents_BCTHW=together.detach(), cache=cache)
        return together[:, :, -self._frames :]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Clip:
    """A long clip so far."""

    latents_BCTHW: Tensor
    """All of it: a prompt switch computes the cache from frames as old as the sink."""
    cache: KVCache


def _held(clip: _Clip) -> Tensor:
    """The frames that the clip's cache holds: the sink, then the latest."""
    frames = clip.latents_BCTHW.shape[2]
    sink = min(clip.cache.causal.sink, clip.cache.held)
    latest = frames - (clip.cache.held - sink)
    return torch.cat([clip.latents_BCTHW[:, :, :sink], clip.latents_BCTHW[:, :, latest:]], dim=2)


def _roll(round: Round, blocks: int, cache: KVCache | None) -> tuple[Tensor, KVCache]:
    """The next blocks, and the cache after them."""
    parts = []
    for block in round.players.blocks(
        round.batch.text_BLD,
        shape=round.batch.shape,
        schedule=round.schedule,
        noise=_noise(round),
        blocks=blocks,
        exit_step=round.exit_step,
        train=round.net == "student",
        cache=cache,
    ):
        parts.append(block.latents_BCTHW)
        cache = block.cache
    assert cache is not None
    return torch.cat(parts, dim=2), cache


def _noise(round: Round) -> Noise:
    device = round.batch.text_BLD.device

    def draw(block: int, step: int, size: tuple[int, ...]) -> Tensor:
        purpose = f"block {block} step {step}"
        return round.draws.noise(purpose, size, device=device, dtype=round.dtype)

    return draw


ROLLOUTS: dict[str, Callable[[TrainConfig, int], Rollout]] = {
    "clip": lambda config, frames: Rollout(whole),
    "blocks": lambda config, frames: Rollout(in_blocks),
    "stream": lambda config, frames: Stream(config, frames=frames),
}
"""By `TrainConfig.rollout`; made for clips of so many latent frames."""
