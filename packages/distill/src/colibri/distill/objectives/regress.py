"""Regression on the teacher's paths: from each of the student's levels to where the path ends.

What CausVid (arXiv 2412.07772, section 4.4) starts from, with paths made on the way in place of
files. Its samples are means over what is possible: a start for `dmd`, and what to compare it with.
"""

import itertools

import numpy as np
import torch

from colibri.core.schedule import x0_from_velocity
from colibri.distill.config import RegressConfig
from colibri.distill.objectives.base import Round, TermLoss
from colibri.distill.objectives.scores import teacher_path


def regress(round: Round, config: RegressConfig) -> TermLoss:
    """Mean over the student's levels of (x0 - end of path)^2 by sample; the paths start from
    noise, pass through every level, and have about `config.steps` Euler steps."""
    batch, schedule = round.batch, round.schedule
    sigmas, places = path_levels(schedule.sigmas, config.steps)
    states = teacher_path(round, round.noise("regress noise"), sigmas)
    total = torch.zeros(len(batch.ids), dtype=round.dtype, device=batch.text_BLD.device)
    for index, place in enumerate(places):
        velocity = round.players.velocity(
            "student",
            states[place],
            schedule.sigmas[index],
            batch.text_BLD,
            timestep=schedule.timesteps[index],
            clean_first=batch.clean_first,
        )
        estimate = x0_from_velocity(states[place], velocity, schedule.sigmas[index])
        total = total + batch.mean((estimate - states[-1]).square())
    return TermLoss(loss_B=total / schedule.steps)


def path_levels(sigmas: tuple[float, ...], steps: int) -> tuple[list[float], list[int]]:
    """Levels of a path from 1 to 0 of at least `steps` steps with `sigmas` among them, and where
    those stand (the final 0 left out). `sigmas` fall and end with 0."""
    ends = list(sigmas) if sigmas[0] == 1 else [1.0, *sigmas]
    each = -(-steps // (len(ends) - 1))
    levels = [ends[0]]
    for high, low in itertools.pairwise(ends):
        levels += np.linspace(high, low, each + 1)[1:].tolist()
    return levels, [levels.index(sigma) for sigma in sigmas[:-1]]
