"""Regression on the teacher's paths: from each of the student's levels to where the path ends.

What CausVid (arXiv 2412.07772, section 4.4) starts from; paths come from files (`pairs`) or are
made on the way. Its samples are means over what is possible: a start for `dmd`, and what to compare
it with.
"""

import itertools

import numpy as np
import torch
from torch import Tensor

from colibri.core.schedule import x0_from_velocity
from colibri.distill.config import RegressConfig
from colibri.distill.objectives.base import Round, TermLoss
from colibri.distill.objectives.scores import teacher_path


def regress(round: Round, config: RegressConfig) -> TermLoss:
    """Mean over the student's levels of (x0 - end of path)^2 by sample; the paths start from
    noise, pass through every level, and have about `config.steps` Euler steps.

    Of a causal student, each block is at one level, drawn by itself: one pass in place of many.
    """
    states, end = _path(round, config)
    if round.causal is not None:
        return _in_blocks(round, config, states, end)
    batch, schedule = round.batch, round.schedule
    total = torch.zeros(len(batch.ids), dtype=round.dtype, device=batch.text_BLD.device)
    for index, state in enumerate(states):
        velocity = round.players.velocity(
            "student",
            state,
            schedule.sigmas[index],
            batch.text_BLD,
            timestep=schedule.timesteps[index],
            clean_first=batch.clean_first,
        )
        estimate = x0_from_velocity(state, velocity, schedule.sigmas[index])
        total = total + batch.mean((estimate - end).square())
    return TermLoss(loss_B=total / schedule.steps)


def _path(round: Round, config: RegressConfig) -> tuple[list[Tensor], Tensor]:
    """States of the teacher's path at the student's levels, and its end; from a file where the
    batch has one."""
    if round.batch.path_BKCTHW is not None:
        *states, end = round.batch.path_BKCTHW.to(round.dtype).unbind(1)
        return states, end
    sigmas, places = path_levels(round.schedule.sigmas, config.steps)
    path = teacher_path(round, round.noise("regress noise"), sigmas)
    return [path[place] for place in places], path[-1]


def _in_blocks(
    round: Round, config: RegressConfig, states: list[Tensor], end_BCTHW: Tensor
) -> TermLoss:
    assert round.causal is not None
    batch, schedule = round.batch, round.schedule
    spans = round.causal.blocks(batch.shape.frames)
    index_BT = torch.cat(
        [
            (round.draws.uniform(f"regress level {number}") * schedule.steps)
            .long()[:, None]
            .expand(-1, end - start)
            for number, (start, end) in enumerate(spans)
        ],
        dim=1,
    )
    chosen = index_BT.to(end_BCTHW.device)[:, None, :, None, None]
    x = torch.zeros_like(end_BCTHW)
    for index, state in enumerate(states):
        x = torch.where(chosen == index, state, x)
    sigma_BT, timestep_BT = (
        torch.tensor(levels, dtype=torch.float64)[index_BT]
        for levels in (schedule.sigmas, schedule.timesteps)
    )
    velocity = round.players.velocity(
        "student",
        x,
        sigma_BT,
        batch.text_BLD,
        timestep=timestep_BT,
        clean_BCTHW=end_BCTHW if config.context == "clean" else None,
    )
    level = sigma_BT.to(x.device, x.dtype)[:, None, :, None, None]
    estimate = x0_from_velocity(x, velocity, level)
    return TermLoss(loss_B=batch.mean((estimate - end_BCTHW).square()))


def path_levels(sigmas: tuple[float, ...], steps: int) -> tuple[list[float], list[int]]:
    """Levels of a path from 1 to 0 of at least `steps` steps with `sigmas` among them, and where
    those stand (the final 0 left out). `sigmas` fall and end with 0."""
    ends = list(sigmas) if sigmas[0] == 1 else [1.0, *sigmas]
    each = -(-steps // (len(ends) - 1))
    levels = [ends[0]]
    for high, low in itertools.pairwise(ends):
        levels += np.linspace(high, low, each + 1)[1:].tolist()
    return levels, [levels.index(sigma) for sigma in sigmas[:-1]]
