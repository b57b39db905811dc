"""What a light decoder is trained for. Pure: tensors in, named scalars out.

Pixels are in [-1, 1]; every term is a mean, so that crops and lengths do not change its scale.
"""

# B batch  C channels  F frames  H rows  W columns

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colibri.vae.config import LossConfig
from colibri.vae.light import LightDecoder

BLOCKS = 3
"""Teacher blocks whose features are distilled: middle, first and second up block."""


class Student(nn.Module):
    """A light decoder, and one trainable 1x1x1 convolution for each distilled block."""

    def __init__(self, decoder: LightDecoder, teacher_widths: Sequence[int]) -> None:
        super().__init__()
        self.decoder = decoder
        widths = decoder.config.widths
        # A stage's output has the next stage's width.
        self.heads = nn.ModuleList(
            nn.Conv3d(widths[min(index + 1, len(widths) - 1)], teacher_width, 1)
            for index, teacher_width in enumerate(teacher_widths)
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Video, and the stages' outputs as the heads see them in the teacher's channels."""
        taps: list[Tensor] = []
        video = self.decoder(latents, taps=taps)
        return video, [head(tap) for head, tap in zip(self.heads, taps, strict=False)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What one batch is compared with."""

    clip: Tensor
    """(B, 3, F, H, W)"""
    features: list[Tensor]
    """Of the teacher's blocks; empty where they are not distilled."""
    teacher_video: Tensor | None
    kl: Tensor
    """Of the encoder's posterior to a unit Gaussian, per latent value; no gradient reaches it."""


def losses(
    video: Tensor,
    projected: Sequence[Tensor],
    target: Target,
    config: LossConfig,
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """Every term by name, unweighted; terms of weight 0 are left out."""
    video = _wide(video)
    terms: dict[str, Tensor] = {"l1": l1(video, target.clip)}
    if config.temporal:
        terms["temporal"] = temporal(video, target.clip)
    if config.features:
        pairs = zip(projected, target.features, strict=True)
        parts = [
            feature_distance(_wide(ours), _wide(theirs), normalise=config.normalise_features)
            for ours, theirs in pairs
        ]
        terms["features"] = torch.stack(parts).mean()
    if config.teacher_output and target.teacher_video is not None:
        terms["teacher_output"] = l1(video, _wide(target.teacher_video))
    if config.lpips and lpips is not None:
        terms["lpips"] = lpips(video, target.clip)
    terms["kl"] = target.kl
    return terms


def weighted(terms: dict[str, Tensor], config: LossConfig) -> Tensor:
    """The sum that is minimised."""
    parts = [value * float(getattr(config, name)) for name, value in terms.items()]
    return torch.stack(parts).sum()


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def l1(video: Tensor, clip: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (video - clip).abs().mean()


def temporal(video: Tensor, clip: Tensor) -> Tensor:
    """Mean absolute difference of what changes from frame to frame; 0 for a single frame."""
    if video.shape[2] < 2:
        return video.new_zeros(())
    return (video.diff(dim=2) - clip.diff(dim=2)).abs().mean()


def feature_distance(ours: Tensor, theirs: Tensor, *, normalise: bool) -> Tensor:
    """Mean squared difference; `normalise` divides each channel of each clip by the teacher's
    variance there, so that it does not matter how clips are batched."""
    error = (ours - theirs).square()
    if not normalise:
        return error.mean()
    variance = theirs.var(dim=(2, 3, 4), unbiased=False)
    return (error.mean(dim=(2, 3, 4)) / (variance + 1e-6)).mean()


def posterior_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of a diagonal Gaussian from the unit one, mean over latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
