"""Ask a Wan transformer for the velocity. The only place that knows its argument names.

Leaves schedules to `colibri.core.schedule` and steps to `sampler`.
"""

# B batch  C channels  T latent frames  H W latent rows, columns  L text tokens  D text width
# S video tokens, in the order (frames, rows, columns) of patches

from typing import Any

import torch
from torch import Tensor

from colibri.core.schedule import TRAIN_TIMESTEPS


def velocity(
    model: Any,
    x_BCTHW: Tensor,
    sigma: float | Tensor,
    text_BLD: Tensor,
    *,
    timestep: float | Tensor | None = None,
    clean_first: bool | Tensor = False,
    per_token: bool = False,
) -> Tensor:
    """The velocity noise - x0 at `x_BCTHW`, in its dtype; the model computes in its own.

    `model` is a `WanTransformer3DModel`, or wraps one. `sigma` in [0, 1] is one number, one a
    sample (B,), or one a frame (B, T). `timestep` replaces 1000 * sigma where a schedule rounds it.
    `clean_first` tells the model that latent frame 0 holds the given image: timestep 0 there, for
    all samples or by sample (B,); putting the image there is the caller's part.

    Timesteps are float64 until the model's sinusoids. They go in once a token where frames differ
    or `per_token` asks for it, else once a sample: equal up to rounding, and without the model's
    (S, 6, width) float32 modulation.
    """
    timesteps = frame_timesteps(
        x_BCTHW, sigma if timestep is None else timestep, clean_first, raw=timestep is not None
    )
    if per_token or timesteps.ndim == 2:
        timesteps = token_timesteps(timesteps, x_BCTHW, tuple(model.config.patch_size))
    if x_BCTHW.device.type == "mps":  # no float64 there; the sinusoids are float32 anyway
        timesteps = timesteps.float()
    dtype = model.dtype
    # FSDP's cast_forward_inputs has to be off around this: it would round timesteps to bfloat16.
    (predicted,) = model(
        hidden_states=x_BCTHW.to(dtype),
        timestep=timesteps.to(x_BCTHW.device),
        encoder_hidden_states=text_BLD.to(dtype),
        return_dict=False,
    )
    result: Tensor = predicted.to(x_BCTHW.dtype)
    return result


def frame_timesteps(
    x_BCTHW: Tensor,
    level: float | Tensor,
    clean_first: bool | Tensor = False,
    *,
    raw: bool = False,
) -> Tensor:
    """Timesteps in float64 on the CPU, (B,) where all frames are alike and (B, T) else.

    `level` is sigma, or the timestep itself with `raw`.
    """
    batch, frames = x_BCTHW.shape[0], x_BCTHW.shape[2]
    levels = torch.as_tensor(level, dtype=torch.float64, device="cpu")
    timesteps = levels if raw else levels * TRAIN_TIMESTEPS
    if timesteps.ndim < 2:
        timesteps = timesteps.expand(batch)
    assert timesteps.shape in ((batch,), (batch, frames)), timesteps.shape
    clean = torch.as_tensor(clean_first, device="cpu").expand(batch)
    if clean.any():
        if timesteps.ndim == 1:
            timesteps = timesteps[:, None].expand(batch, frames)
        timesteps = timesteps.clone()
        timesteps[clean, 0] = 0
    return timesteps


def token_timesteps(timesteps: Tensor, x_BCTHW: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """One timestep a video token, (B, S), from (B,) or (B, T)."""
    batch, _, frames, height, width = x_BCTHW.shape
    if timesteps.ndim == 1:
        timesteps = timesteps[:, None].expand(batch, frames)
    return timesteps[:, :: patch[0]].repeat_interleave(
        (height // patch[1]) * (width // patch[2]), dim=1
    )


def keep_first(x_BCTHW: Tensor, first_BCTHW: Tensor) -> Tensor:
    """`x_BCTHW` with its leading latent frames replaced by the given clean ones."""
    return torch.cat([first_BCTHW.to(x_BCTHW), x_BCTHW[:, :, first_BCTHW.shape[2] :]], dim=2)
