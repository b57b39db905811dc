"""How near a decoded video is to the clip: PSNR, SSIM, flicker, seams. Pure.

Videos are (B, 3, frames, height, width) in [0, 1], rounded to 8 bits by the caller or not.
"""

import torch
from torch import Tensor
from torch.nn import functional

from colibri.core.errors import UserError


def psnr(video: Tensor, clip: Tensor) -> float:
    """Peak signal to noise ratio in dB over the whole clip; infinite for equal videos."""
    error = float((video.double() - clip.double()).square().mean())
    return float("inf") if error == 0 else -10 * float(torch.log10(torch.tensor(error)))


def ssim(video: Tensor, clip: Tensor) -> float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, without borders, mean
    over channels and frames. UserError for pictures smaller than the window."""
    if min(video.shape[3:]) < 11:
        raise UserError("SSIM needs pictures of at least 11x11 pixels")
    x, y = (part.double().transpose(1, 2).flatten(0, 2)[:, None] for part in (video, clip))
    offset = torch.arange(11, dtype=torch.float64, device=x.device) - 5
    line = torch.exp(-offset.square() / (2 * 1.5**2))
    line = line / line.sum()

    def blur(picture: Tensor) -> Tensor:
        picture = functional.conv2d(picture, line.view(1, 1, 11, 1))
        return functional.conv2d(picture, line.view(1, 1, 1, 11))

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x.square()
    var_y = blur(y * y) - mean_y.square()
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return float(likeness.mean())


def flicker(video: Tensor, clip: Tensor) -> float:
    """Mean absolute change of the error from frame to frame, in 1/255; 0 is none."""
    return float((video - clip).double().diff(dim=2).abs().mean() * 255)


def seams(video: Tensor, clip: Tensor, boundaries: list[int]) -> float:
    """How much more the error changes at `boundaries` than elsewhere: about 1 without seams.

    A boundary b lies between frames b - 1 and b. NaN where there is none, or nothing else.
    """
    steps = (video - clip).double().diff(dim=2).abs().mean(dim=(0, 1, 3, 4))
    at = [b - 1 for b in boundaries if 0 < b <= len(steps)]
    inside = [index for index in range(len(steps)) if index not in set(at)]
    if not at or not inside:
        return float("nan")
    return float(steps[at].mean() / steps[inside].mean().clamp_min(1e-12))


def latent_boundaries(frames: int, time: int, chunk: int = 1) -> list[int]:
    """Where a new chunk of latents begins: frames 1, 1 + time, ... for chunk 1."""
    latents = (frames - 1) // time + 1
    return [time * latent - (time - 1) for latent in range(chunk, latents, chunk)]
