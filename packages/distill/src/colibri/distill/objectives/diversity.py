"""Keeps what a seed decides: the student's first step goes where the teacher's first steps go.

The distribution loss is content with few clips per prompt as long as they are likely; structure,
and with it variety, is decided at the highest level. So the first step's velocity is held to the
mean velocity of the teacher's guided path over its first steps, and later steps are left free.
LightX2V's trainer has such a term for Wan2.2 with an anchor at the teacher's fifth step and a
weight of .05.
"""

from colibri.core.schedule import FlowSchedule
from colibri.distill.config import DiversityConfig
from colibri.distill.objectives.base import Round, TermLoss
from colibri.distill.objectives.scores import teacher_path


def diversity(round: Round, config: DiversityConfig) -> TermLoss:
    """mean (v - (noise - x_k) / (1 - s_k))^2 by sample, at pure noise; x_k is the teacher's state
    after `config.anchor` of `config.steps` Euler steps."""
    batch, schedule = round.batch, round.schedule
    noise = round.noise("diversity noise")
    grid = FlowSchedule.euler(config.steps, schedule.shift).sigmas[: config.anchor + 1]
    anchor = teacher_path(round, noise, grid)[-1]
    mean_velocity = (noise - anchor) / (grid[0] - grid[-1])
    velocity = round.players.velocity(
        "student",
        batch.clamp(noise),
        schedule.sigmas[0],
        batch.text_BLD,
        timestep=schedule.timesteps[0],
        clean_first=batch.clean_first,
    )
    loss = batch.mean((velocity - mean_velocity).square())
    return TermLoss(loss_B=loss, figures={"diversity/anchor": loss.detach().tolist()})
