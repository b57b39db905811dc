"""Backward simulation: the student's own trajectory, with a gradient through its last step only.

Yin et al., Improved Distribution Matching Distillation (arXiv 2405.14867), section 4.5; random exit
as in Self-Forcing (arXiv 2506.08009). Few-step sampling as `core.wan.sampler.consistency`.
"""

import torch
from torch import Tensor

from colibri.core.schedule import FlowSchedule, add_noise, x0_from_velocity
from colibri.distill.objectives.base import Batch, Draws, Players


def simulate(
    players: Players,
    batch: Batch,
    draws: Draws,
    schedule: FlowSchedule,
    *,
    exit_step: int,
    train: bool,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The student's noise-free estimate (B, C, T, H, W) after steps 0 to `exit_step`.

    Steps before the last leave no graph. A given first frame is clean at every step and in the
    result, where it has no gradient.
    """
    device = batch.text_BLD.device
    x = draws.noise("start", batch.size, device=device, dtype=dtype)
    for index in range(exit_step):
        with torch.no_grad():
            estimate = _estimate(players, batch, schedule, index, x)
        fresh = draws.noise(f"step {index + 1}", batch.size, device=device, dtype=dtype)
        x = add_noise(estimate, fresh, schedule.sigmas[index + 1])
    with torch.set_grad_enabled(train):
        return batch.clamp(_estimate(players, batch, schedule, exit_step, x))


def _estimate(
    players: Players, batch: Batch, schedule: FlowSchedule, index: int, x_BCTHW: Tensor
) -> Tensor:
    sigma = schedule.sigmas[index]
    velocity = players.velocity(
        "student",
        batch.clamp(x_BCTHW),
        sigma,
        batch.text_BLD,
        timestep=schedule.timesteps[index],
        clean_first=batch.clean_first,
    )
    return x0_from_velocity(x_BCTHW, velocity, sigma)
