"""What a light decoder is trained for. Pure: tensors in, named scalars out.

Pixels are in [-1, 1]; every term is a mean, so that crops and lengths do not change its scale.
"""

# B batch  C channels  F frames  H rows  W columns

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.vae.config import LossConfig
from colibri.vae.light import LightDecoder
from colibri.vae.taehv import PreviewDecoder

BLOCKS = 3
"""Teacher blocks whose features are distilled: middle, first and second up block."""


class Student(nn.Module):
    """A decoder, and one trainable 1x1x1 convolution for each distilled block.

    A 2D one has no stages on the teacher's grids: `teacher_widths` has to be empty.
    """

    def __init__(
        self, decoder: LightDecoder | PreviewDecoder, teacher_widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.decoder = decoder
        widths = decoder.config.widths if isinstance(decoder, LightDecoder) else ()
        # A stage's output has the next stage's width.
        self.heads = nn.ModuleList(
            nn.Conv3d(widths[min(index + 1, len(widths) - 1)], teacher_width, 1)
            for index, teacher_width in enumerate(teacher_widths)
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Video, and the stages' outputs as the heads see them in the teacher's channels."""
        taps: list[Tensor] = []
        if not self.heads:
            return self.decoder(latents), taps
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
    kl: Tensor | None
    """Of the encoder's posterior to a unit Gaussian, per latent value; no gradient reaches it. None
    where no encoder made the latents."""


def losses(
    video: Tensor,
    projected: Sequence[Tensor],
    target: Target,
    config: LossConfig,
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
    judged: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Every term by name, unweighted; terms of weight 0 are left out, but for L1 and KL."""
    video = _wide(video)
    terms: dict[str, Tensor] = {"l1": l1(video, target.clip)}
    if config.temporal:
        terms["temporal"] = temporal(video, target.clip)
    if config.multiscale:
        terms["multiscale"] = multiscale(video, target.clip)
    if target.features:
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
    if config.gan and judged is not None:
        terms["gan"] = judged(video)
    if target.kl is not None:
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


def multiscale(video: Tensor, clip: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference of each band of a Laplacian pyramid in space, mean over bands.

    Bands are what halving the picture loses, `levels` times, and what is left; a video too small
    to be halved has fewer.
    """
    error = (video - clip).flatten(0, 1)  # frames as channels of a picture
    terms = []
    for _ in range(levels):
        if min(error.shape[2:]) < 2:
            break
        coarse = functional.avg_pool2d(error, 2, ceil_mode=True)
        spread = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        terms.append((error - spread[..., : error.shape[2], : error.shape[3]]).abs().mean())
        error = coarse
    terms.append(error.abs().mean())
    return torch.stack(terms).mean()


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
