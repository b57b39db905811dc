"""A GAN beside the distribution loss: a head on the critic's features tells real clips from made.

Yin et al., Improved Distribution Matching Distillation (arXiv 2405.14867), section 4.3: what the
teacher gets wrong, the scores cannot mend; real clips can. Both kinds are judged with fresh noise
on them. The losses are the logistic ones of tianweiy/DMD2 main/sd_guidance.py.
"""

from torch import Tensor
from torch.nn.functional import softplus

from colibri.core.schedule import add_noise
from colibri.distill.config import AdversaryConfig, DiscriminateConfig
from colibri.distill.objectives.base import Round, TermLoss, level_of


def adversary(round: Round, config: AdversaryConfig) -> TermLoss:
    """The student's: softplus(-verdict on its clip) by sample."""
    logits = _verdict(round, round.sample_BCTHW, "adversary")
    return TermLoss(
        loss_B=softplus(-logits), figures={"gan/fools": (logits.detach() > 0).double().tolist()}
    )


def discriminate(round: Round, config: DiscriminateConfig) -> TermLoss:
    """The head's: softplus(verdict on a made clip) + softplus(-verdict on a real one), at one noise
    level and with one draw of noise for both."""
    real = round.batch.clip_BCTHW
    assert real is not None
    made = _verdict(round, round.sample_BCTHW.detach(), "discriminate")
    true = _verdict(round, real.to(round.dtype), "discriminate")
    right = ((made < 0).double() + (true > 0).double()) / 2
    return TermLoss(
        loss_B=softplus(made) + softplus(-true), figures={"gan/head_right": right.tolist()}
    )


def _verdict(round: Round, x_BCTHW: Tensor, purpose: str) -> Tensor:
    batch = round.batch
    sigma = round.sigma(f"{purpose} level")
    noisy = add_noise(x_BCTHW, round.noise(f"{purpose} noise"), level_of(sigma, x_BCTHW))
    return round.players.verdict(
        batch.clamp(noisy), sigma, batch.text_BLD, clean_first=batch.clean_first
    ).to(round.dtype)
