"""Discrete consistency: neighbours on the teacher's guided path lead the student to one clip.

Song et al., Consistency Models (arXiv 2303.01469), section 4, with the target network's average at
0 as Song and Dhariwal (arXiv 2310.14189) have it. Beside `dmd` it keeps the student's clips tied to
their noise, which the distribution loss alone does not: discrete consistency with DMD, as in rCM
(arXiv 2510.08431) with `cm_type = dcm`. What is noised are the student's clips, or real ones.

A causal student's blocks see the clean clip before them, as in its rollout: with real clips this is
a start without files of paths, the causal consistency distillation of Causal Forcing++ (arXiv
2605.15141), but with the bidirectional teacher in place of a causal one.
"""

import numpy as np
import torch
from torch import Tensor

from colibri.core.schedule import add_noise, shift_sigma, x0_from_velocity
from colibri.distill.config import ConsistencyConfig
from colibri.distill.objectives.base import Round, TermLoss, by_level, level_of
from colibri.distill.objectives.scores import guided_velocity


def consistency(round: Round, config: ConsistencyConfig) -> TermLoss:
    """mean (x0(x_n, s_n) - sg x0(x_m, s_m))^2 by sample; x_m is one guided Euler step of the
    teacher from x_n to the next level s_m. At the last level x_m itself is the target."""
    batch = round.batch
    levels = torch.from_numpy(
        shift_sigma(np.linspace(1, 0, config.grid + 1), round.schedule.shift).copy()
    )
    drawn = (round.draws.uniform("consistency level") * config.grid).long()
    high, low = levels[drawn], levels[drawn + 1]
    if config.of == "clips":
        assert batch.clip_BCTHW is not None
        x = batch.clip_BCTHW.to(round.dtype)
    else:
        x = round.sample_BCTHW.detach()
    seen = None if round.causal is None else x
    wide, narrow = level_of(high, x), level_of(low, x)
    noisy = batch.clamp(add_noise(x, round.noise("consistency noise"), wide))
    with torch.no_grad():
        step = guided_velocity(round, "teacher", noisy, high, weight=round.guidance.real)
        after = batch.clamp(noisy + (narrow - wide) * step)
        there = _student(round, after, low, seen)
        target = torch.where(narrow > 0, x0_from_velocity(after, there, narrow), after)
    estimate = x0_from_velocity(noisy, _student(round, noisy, high, seen), wide)
    loss = batch.mean((estimate - target).square())
    return TermLoss(loss_B=loss, figures=by_level("consistency/loss", loss.detach(), high))


def _student(round: Round, x_BCTHW: Tensor, sigma_B: Tensor, clean_BCTHW: Tensor | None) -> Tensor:
    batch = round.batch
    if clean_BCTHW is not None:
        return round.players.velocity(
            "student", x_BCTHW, sigma_B, batch.text_BLD, clean_BCTHW=clean_BCTHW
        )
    return round.players.velocity(
        "student", x_BCTHW, sigma_B, batch.text_BLD, clean_first=batch.clean_first
    )
