"""The distribution matching gradient: critic's score minus teacher's, at the student's samples.

Yin et al., One-step Diffusion with Distribution Matching Distillation (arXiv 2311.18828), equations
7 and 8, with x0 estimates for scores. Per sample, and only over what is generated.
"""

import torch

from colibri.core.schedule import add_noise
from colibri.distill.config import DmdConfig
from colibri.distill.objectives.base import Round, TermLoss, by_level, level_of
from colibri.distill.objectives.scores import guided_x0


def dmd(round: Round, config: DmdConfig) -> TermLoss:
    """1/2 mean (x - sg(x - g))^2 by sample, so that dloss/dx = g / elements.

    g = (fake - real) / mean |x - real|. The value itself says nothing: g is normalised.
    """
    batch, guidance = round.batch, round.guidance
    x = round.sample_BCTHW
    with torch.no_grad():
        sigma = round.sigma("dmd level")
        noisy = add_noise(x.detach(), round.noise("dmd noise"), level_of(sigma, x))
        noisy = batch.clamp(noisy)
        fake = guided_x0(round, "critic", noisy, sigma, weight=guidance.fake)
        real = guided_x0(round, "teacher", noisy, sigma, weight=guidance.real)
        difference = fake - real
        scale = batch.mean((x - real).abs()).clamp_min(config.floor)
        gradient = difference / scale.view(-1, 1, 1, 1, 1)
        target = x - gradient
        gap = batch.mean(difference.square()).sqrt()
        figures = {
            "dmd/gradient_raw": gap.tolist(),
            "dmd/gradient": batch.mean(gradient.square()).sqrt().tolist(),
            "dmd/scale": scale.tolist(),
            **by_level("dmd/gap", gap, sigma),
        }
    return TermLoss(loss_B=0.5 * batch.mean((x - target).square()), figures=figures)
