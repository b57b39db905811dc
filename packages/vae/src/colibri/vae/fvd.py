"""FVD (Unterthiner et al. 2018, arXiv 1812.01717): Frechet distance of two sets of videos in the
features of an I3D network, whose real weights the user provides. Nothing else may be called FVD.

The file is the TorchScript one that StyleGAN-V and others measure with (i3d_torchscript.pt): called
with videos (B, 3, F, H, W) in [0, 255], it resizes and scales them itself and gives 400 features.
Such a file is a program: take it from where you trust it.
"""

# B batch  C channels  F frames  H rows  W columns

from pathlib import Path

import torch
from torch import Tensor

from colibri.core.errors import UserError

FEATURES = 400
SHORTEST = 10
"""Frames that the network needs."""


class Fvd:
    """Features of clips and of decoded videos, and their distance."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """UserError for a file that is missing or no TorchScript."""
        if not path.is_file():
            raise UserError(f"there is no file {str(path)!r} with the I3D network for FVD")
        try:
            self.network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            first = " ".join(str(error).split())[:120]
            raise UserError(
                f"{path} is no TorchScript file: {first}", hint="give i3d_torchscript.pt"
            ) from None
        self.path, self.device = path, device

    @torch.no_grad()
    def features(self, video: Tensor) -> Tensor:
        """(B, 400) in float64, of videos (B, 3, F, H, W) in [0, 1]."""
        if video.shape[2] < SHORTEST:
            raise UserError(f"FVD needs videos of at least {SHORTEST} frames")
        found = self.network(
            video.to(self.device).float() * 255, rescale=True, resize=True, return_features=True
        )
        if found.ndim != 2 or found.shape[1] != FEATURES:
            raise UserError(
                f"{self.path} gives features of shape {tuple(found.shape)}, not (videos, "
                f"{FEATURES}), so it is not the network that FVD is defined on"
            )
        features: Tensor = found.double().cpu()
        return features


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets of
    features (samples, features), float64. UserError below two samples a set."""
    if min(len(one), len(other)) < 2:
        raise UserError("FVD needs at least two videos", hint="raise --count")
    between = (one.mean(0) - other.mean(0)).square().sum()
    first, second = (torch.cov(part.T) for part in (one, other))
    # the trace of the root of first @ second, by a symmetric matrix with the same eigenvalues
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(between + first.trace() + second.trace() - 2 * mixed)
