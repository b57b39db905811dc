"""The critic's loss: a flow model of the student's samples, which makes its score theirs."""

from colibri.core.schedule import add_noise, velocity_of, x0_from_velocity
from colibri.distill.config import DenoiseConfig
from colibri.distill.objectives.base import Round, TermLoss, by_level, level_of


def denoise(round: Round, config: DenoiseConfig) -> TermLoss:
    """Mean square error of the velocity, or of x0, by sample and only over what is generated."""
    batch = round.batch
    x = round.sample_BCTHW.detach()
    sigma, noise = round.sigma("critic level"), round.noise("critic noise")
    level = level_of(sigma, x)
    noisy = batch.clamp(add_noise(x, noise, level))
    velocity = round.players.velocity(
        "critic", noisy, sigma, batch.text_BLD, clean_first=batch.clean_first
    )
    if config.target == "velocity":
        error = velocity - velocity_of(x, noise)
    else:
        error = x0_from_velocity(noisy, velocity, level) - x
    loss = batch.mean(error.square())
    return TermLoss(loss_B=loss, figures=by_level("critic/loss", loss.detach(), sigma))
