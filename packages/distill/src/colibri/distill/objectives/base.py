"""What a loss is given and gives back: the batch, the networks, the draws, one round's samples.

A term is a function `(round, config) -> TermLoss`; its `TermKind` names the network it trains.
Terms know no optimiser, no file and no other term.
"""

# B batch  C channels  T latent frames  H W latent rows, columns  L text tokens  D text width

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule, shift_sigma
from colibri.core.wan.cache import KVCache
from colibri.core.wan.family import Causal
from colibri.core.wan.rollout import Block, Noise
from colibri.core.wan.sampler import draw_noise
from colibri.core.wan.transformer import keep_first
from colibri.distill.config import GuidanceConfig, NoiseConfig

Net = Literal["student", "critic"]
"""A network that is trained."""
Role = Literal["student", "critic", "teacher"]


class Players(Protocol):
    """The three networks as terms see them."""

    def velocity(
        self,
        role: Role,
        x_BCTHW: Tensor,
        sigma: float | Tensor,
        text_BLD: Tensor,
        *,
        timestep: float | Tensor | None = None,
        clean_first: bool | Tensor = False,
        clean_BCTHW: Tensor | None = None,
    ) -> Tensor:
        """noise - x0 as `role` predicts it; arguments as `core.wan.transformer.velocity`.

        A causal student answers block by block; `clean_BCTHW` are the clean latents that its blocks
        see of those before them (`core.wan.causal.clip_velocity`).
        """

    def blocks(
        self,
        text_BLD: Tensor,
        *,
        shape: LatentShape,
        schedule: FlowSchedule,
        noise: Noise,
        blocks: int,
        exit_step: int | None = None,
        train: bool = False,
        cache: KVCache | None = None,
    ) -> Iterator[Block]:
        """A causal student's self-rollout; arguments as `core.wan.rollout.block_rollout`."""

    def rewritten(
        self,
        text_BLD: Tensor,
        held_BCTHW: Tensor,
        cache: KVCache,
        *,
        schedule: FlowSchedule,
        noise: Noise,
    ) -> KVCache:
        """The causal student's cache computed again for another text, without a graph."""

    def verdict(
        self,
        x_BCTHW: Tensor,
        sigma: float | Tensor,
        text_BLD: Tensor,
        *,
        clean_first: bool | Tensor = False,
    ) -> Tensor:
        """Logits (B,) of the head on the critic's features: above 0 for a real clip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Prompts, and first frames for those samples that are image to video."""

    ids: tuple[str, ...]
    text_BLD: Tensor
    null_BLD: Tensor
    """The negative prompt, once a sample."""
    first_BCTHW: Tensor
    """Normalised latent of the first frame (T = 1); anything where `given_B` is False."""
    given_B: Tensor
    """bool: latent frame 0 is given (image to video)."""
    shape: LatentShape
    clip_BCTHW: Tensor | None = None
    """Normalised latents of the rows' real clips, where a term asked for them."""
    path_BKCTHW: Tensor | None = None
    """The teacher's paths from files: states at each of the student's levels, then the end."""
    held: int = 0
    """Leading latent frames that an earlier round made: noised and seen like the others, and out of
    every loss."""

    @property
    def size(self) -> tuple[int, int, int, int, int]:
        """(B, C, T, H, W) of the latents."""
        shape = self.shape
        return (len(self.ids), shape.channels, shape.frames, shape.height, shape.width)

    @cached_property
    def mask_B1T11(self) -> Tensor:
        """bool: True where latents are generated, False on given and on held frames."""
        mask = torch.ones(len(self.ids), 1, self.shape.frames, 1, 1, dtype=torch.bool)
        mask[self.given_B.cpu(), :, 0] = False
        mask[:, :, : self.held] = False
        return mask.to(self.text_BLD.device)

    @property
    def clean_first(self) -> bool | Tensor:
        """As `velocity` takes it; False where no sample is given a frame."""
        given = self.given_B.cpu()
        return given if bool(given.any()) else False

    def clamp(self, x_BCTHW: Tensor) -> Tensor:
        """`x_BCTHW` with the given first frames in place; others are untouched."""
        if self.clean_first is False:
            return x_BCTHW
        assert self.held == 0
        return torch.where(self.mask_B1T11, x_BCTHW, keep_first(x_BCTHW, self.first_BCTHW))

    def mean(self, values_BCTHW: Tensor) -> Tensor:
        """Mean over what is generated, by sample: (B,)."""
        mask = self.mask_B1T11.expand_as(values_BCTHW)
        kept = torch.where(mask, values_BCTHW, torch.zeros_like(values_BCTHW))
        return kept.flatten(1).sum(1) / mask.flatten(1).sum(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Random numbers as a function of (seed, purpose, sample): the same however samples are split
    into batches and processes, and after a resume."""

    seed: int
    keys: tuple[str, ...]
    """One a sample, never used twice in a run."""
    update: str
    """The same for all samples of one update."""

    def noise(
        self, purpose: str, size: tuple[int, ...], *, device: Any, dtype: torch.dtype
    ) -> Tensor:
        """Standard normal, from CPU generators."""
        generators = [generator_of(self.seed, purpose, key) for key in self.keys]
        return draw_noise(size, generators, device=device, dtype=dtype)

    def uniform(self, purpose: str) -> Tensor:
        """(B,) float64 on the CPU, in [0, 1)."""
        draws = [
            torch.rand((), generator=generator_of(self.seed, purpose, key), dtype=torch.float64)
            for key in self.keys
        ]
        return torch.stack(draws)

    def integer(self, purpose: str, below: int) -> int:
        """One for the whole update, alike in every process."""
        generator = generator_of(self.seed, purpose, self.update)
        return int(torch.randint(below, (), generator=generator))


def generator_of(seed: int, purpose: str, key: str) -> torch.Generator:
    """A CPU generator that depends on these three alone."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TermLoss:
    """What a term gives back."""

    loss_B: Tensor
    """One a sample, so that the mean over any split of a batch is the same."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """For the log: values that are averaged over samples."""


class Round:
    """One micro-batch in play: the networks, the batch, and what its terms share."""

    def __init__(
        self,
        *,
        net: Net,
        players: Players,
        batch: Batch,
        draws: Draws,
        schedule: FlowSchedule,
        noise: NoiseConfig,
        guidance: GuidanceConfig,
        batched_cfg: bool = True,
        dtype: torch.dtype = torch.float32,
        causal: Causal | None = None,
        make: "Callable[[Round], Tensor] | None" = None,
    ) -> None:
        self.net, self.players, self.batch, self.draws = net, players, batch, draws
        self.schedule, self.guidance = schedule, guidance
        self.batched_cfg, self.dtype = batched_cfg, dtype
        self.causal = causal
        """The student's form, where it is causal."""
        self._levels, self._make = noise, make

    @cached_property
    def exit_step(self) -> int:
        """The step of the trajectory that is trained, one for the whole update."""
        return self.draws.integer("exit", self.schedule.steps)

    @cached_property
    def sample_BCTHW(self) -> Tensor:
        """The student's clip; with a gradient through its last step when the student is trained."""
        from colibri.distill.objectives.rollouts import whole

        return (self._make or whole)(self)

    @property
    def sampled(self) -> bool:
        """Whether a term has asked for the student's clip."""
        return "sample_BCTHW" in self.__dict__

    def noise(self, purpose: str) -> Tensor:
        """Fresh noise of the latents' shape."""
        return self.draws.noise(
            purpose, self.batch.size, device=self.batch.text_BLD.device, dtype=self.dtype
        )

    def sigma(self, purpose: str) -> Tensor:
        """(B,) float64: a uniform draw, shifted, kept within the limits; one for all frames."""
        levels = self._levels
        shifted = shift_sigma(self.draws.uniform(purpose), levels.shift)
        return shifted.clamp(levels.low, levels.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class TermKind:
    """A row of the table of terms."""

    net: Net
    loss: Callable[[Round, Any], TermLoss]
    config: Callable[[Any], Any]
    """Picks the term's own part out of a `TrainConfig`; it has a `weight`."""
    needs_critic: bool = False
    """Whether the term asks a critic that another term has to train."""
    needs_head: bool = False
    """Whether the term asks the head on the critic's features."""
    needs_clips: Callable[[Any], bool] = lambda _: False
    """Whether the term, with its part of the config, reads real clips."""


def level_of(sigma_B: Tensor, x_BCTHW: Tensor) -> Tensor:
    """sigma (B,) float64 as a factor for latents: their dtype and device, (B, 1, 1, 1, 1)."""
    return sigma_B.to(x_BCTHW.device, x_BCTHW.dtype).view(-1, 1, 1, 1, 1)


def by_level(name: str, values_B: Tensor, sigma_B: Tensor) -> dict[str, list[float]]:
    """Figures split into five ranges of sigma: `name/0.4-0.6`."""
    figures: dict[str, list[float]] = {}
    for value, sigma in zip(values_B.tolist(), sigma_B.tolist(), strict=True):
        low = min(int(sigma * 5), 4) / 5
        figures.setdefault(f"{name}/{low:.1f}-{low + 0.2:.1f}", []).append(value)
    return figures


def merge_figures(
    into: dict[str, list[float]], more: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """Append the values of `more` to `into`, by name."""
    for name, values in more.items():
        into.setdefault(name, []).extend(values)
    return into
