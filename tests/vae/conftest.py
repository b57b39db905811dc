"""Tiny random decoders and teachers for the tests of the light decoders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.vae.config import TrainConfig
from colibri.vae.light import LightConfig, LightDecoder, light_config

SMALL_VAE = {
    "z_dim": 16,
    "base_dim": 16,
    "decoder_base_dim": 32,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
    "latents_mean": [0.1 * index for index in range(16)],
    "latents_std": [1 + 0.1 * index for index in range(16)],
}
"""Config of a tiny `AutoencoderKLWan` of the form of Wan2.2's: 4x8x8, 16 channels."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose time to threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vae_folder(teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher as a folder."""
    folder = tmp_path_factory.mktemp("teacher") / "vae"
    teacher.save_pretrained(folder)
    return folder


def small_training(vae_folder: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of four steps at the smallest size."""
    plain = {
        "teacher": str(vae_folder),
        "out": out,
        "size": "micro",
        "frames": 5,
        "crop": (32, 32),
        "accumulate": 1,
        "steps": 4,
        "lr": 2e-3,
        "warmup": 1,
        "precision": "fp32",
        "device": "cpu",
        "save_every": 2,
        "log_every": 1,
        "preview_every": 0,
    }
    return TrainConfig(**(plain | changes))


def small_config(*, causal: bool, teacher: Any = SMALL_VAE) -> LightConfig:
    """The smallest size for a tiny teacher."""
    return light_config("micro", teacher, causal=causal)


def small_decoder(
    *, causal: bool, seed: int = 0, dtype: torch.dtype = torch.float64
) -> LightDecoder:
    """A random decoder whose every layer matters."""
    torch.manual_seed(seed)
    return LightDecoder(small_config(causal=causal)).to(dtype).eval().requires_grad_(False)


def latents(frames: int, *, rows: int = 3, columns: int = 4, dtype: Any = torch.float64) -> Any:
    """Random latents of the tiny codec."""
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(1, 16, frames, rows, columns, generator=generator, dtype=dtype)


@pytest.fixture(scope="session")
def teacher() -> Any:
    """A tiny random `AutoencoderKLWan`. Read-only by agreement."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    return AutoencoderKLWan(**SMALL_VAE).eval().requires_grad_(False)
