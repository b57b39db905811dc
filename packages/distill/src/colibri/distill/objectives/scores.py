"""Noise-free estimates of teacher and critic, with classifier-free guidance of a named form."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from colibri.core.schedule import x0_from_velocity
from colibri.distill.objectives.base import Role, Round, level_of


def guided_x0(
    round: Round, role: Role, x_BCTHW: Tensor, sigma_B: Tensor, *, weight: float
) -> Tensor:
    """x0 of `role` at noisy latents; `weight` as the config's form has it.

    Guidance on x0 is guidance on the velocity: both are affine in each other at one sigma.
    """
    velocity = guided_velocity(round, role, x_BCTHW, sigma_B, weight=weight)
    return x0_from_velocity(x_BCTHW, velocity, level_of(sigma_B, x_BCTHW))


def guided_velocity(
    round: Round, role: Role, x_BCTHW: Tensor, sigma_B: Tensor, *, weight: float
) -> Tensor:
    """noise - x0 of `role` at noisy latents; `weight` as the config's form has it.

    At standard weight 1 the unconditional branch is not asked.
    """
    batch, standard = round.batch, round.guidance.standard(weight)
    if standard == 1:
        return _ask(round, role, x_BCTHW, sigma_B, batch.text_BLD, batch.clean_first)
    c, u = _both(round, role, x_BCTHW, sigma_B)
    return u + standard * (c - u)


@torch.no_grad()
def teacher_path(round: Round, x_BCTHW: Tensor, sigmas: Sequence[float]) -> list[Tensor]:
    """The teacher's guided ODE by Euler steps: its states at each of `sigmas`, which fall; the
    first is `x_BCTHW` itself. A given first frame is clean in all of them."""
    batch, weight = round.batch, round.guidance.real
    states = [batch.clamp(x_BCTHW)]
    for sigma, following in itertools.pairwise(sigmas):
        level_B = torch.full((len(batch.ids),), sigma, dtype=torch.float64)
        velocity = guided_velocity(round, "teacher", states[-1], level_B, weight=weight)
        states.append(batch.clamp(states[-1] + (following - sigma) * velocity))
    return states


def _both(round: Round, role: Role, x_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    batch = round.batch
    if not round.batched_cfg:
        return (
            _ask(round, role, x_BCTHW, sigma_B, batch.text_BLD, batch.clean_first),
            _ask(round, role, x_BCTHW, sigma_B, batch.null_BLD, batch.clean_first),
        )
    clean = batch.clean_first
    c, u = _ask(
        round,
        role,
        torch.cat([x_BCTHW, x_BCTHW]),
        torch.cat([sigma_B, sigma_B]),
        torch.cat([batch.text_BLD, batch.null_BLD]),
        clean if isinstance(clean, bool) else torch.cat([clean, clean]),
    ).chunk(2)
    return c, u


def _ask(
    round: Round,
    role: Role,
    x_BCTHW: Tensor,
    sigma_B: Tensor,
    text_BLD: Tensor,
    clean_first: bool | Tensor,
) -> Tensor:
    return round.players.velocity(role, x_BCTHW, sigma_B, text_BLD, clean_first=clean_first)
