"""Between pixels and latents: a Wan VAE's statistics, encoding, decoding, and its hash.

`decode(latents)` takes un-normalised latents, as diffusers' VAEs do. Only `decode_latents`
un-normalises, whatever decodes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.hashing import hash_text
from colibri.core.wan.family import codec_of


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentStats:
    """Mean and standard deviation of each latent channel over the VAE's training data."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "LatentStats":
        """From a VAE's config. UserError where it has none or their number is wrong."""
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if not isinstance(mean, Sequence) or not isinstance(std, Sequence):
            raise UserError("the VAE's config has no latents_mean and latents_std")
        if not len(mean) == len(std) == config["z_dim"]:
            raise UserError(
                f"the VAE's config has {len(mean)} latent means and {len(std)} stds for "
                f"{config['z_dim']} channels"
            )
        return cls(mean=tuple(map(float, mean)), std=tuple(map(float, std)))

    def normalise(self, raw_BCTHW: Tensor) -> Tensor:
        """(raw - mean) / std: what the transformer works on."""
        mean, inverse = self._columns(raw_BCTHW)
        return (raw_BCTHW - mean) * inverse

    def unnormalise(self, latents_BCTHW: Tensor) -> Tensor:
        """latents * std + mean: what the VAE decodes."""
        mean, inverse = self._columns(latents_BCTHW)
        return latents_BCTHW / inverse + mean

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        # The reciprocal, as diffusers' pipelines have it, so that results agree to the last bit.
        mean = torch.tensor(self.mean).view(1, -1, 1, 1, 1).to(like.device, like.dtype)
        inverse = 1.0 / torch.tensor(self.std).view(1, -1, 1, 1, 1).to(like.device, like.dtype)
        return mean, inverse


class Decoder(Protocol):
    """What turns un-normalised latents into video."""

    @property
    def codec(self) -> Codec:
        """Frames a latent, pixels a latent, latent channels."""

    def decode(self, raw_BCTHW: Tensor) -> Tensor:
        """Video (B, 3, frames, height, width) in [-1, 1]."""


class WanDecoder:
    """An `AutoencoderKLWan` as a `Decoder`."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.codec = codec_of(vae.config)

    @torch.no_grad()
    def decode(self, raw_BCTHW: Tensor) -> Tensor:
        """Video (B, 3, frames, height, width) in [-1, 1], in the VAE's dtype."""
        video: Tensor = self.vae.decode(raw_BCTHW.to(self.vae.device, self.vae.dtype)).sample
        return video


@torch.no_grad()
def decode_stream(
    vae: Any, raw_BCTHW: Tensor | Iterable[Tensor], *, chunk: int = 1
) -> Iterator[Tensor]:
    """Video (B, 3, frames, height, width) in [-1, 1] of an `AutoencoderKLWan`, part after part.

    Latents are un-normalised; they may come in pieces along time, as a rollout makes them. After
    the first latent, which stands alone (diffusers' upsampling in time needs that), `chunk` latents
    are decoded at once: more is faster and takes more memory. Joined, the parts are what
    `vae.decode` gives: bit for bit of one piece in chunks of 1, else up to rounding. Memory does
    not grow with the length, and the convolutions' memory is the call's own, so streams do not mix.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify

    if chunk < 1:
        raise UserError(f"a chunk of {chunk} latents is too small", hint="use 1 or more")
    convolutions = sum(isinstance(one, WanCausalConv3d) for one in vae.decoder.modules())
    memory: list[Tensor | str | None] = [None] * convolutions
    first = True
    for piece in [raw_BCTHW] if isinstance(raw_BCTHW, Tensor) else raw_BCTHW:
        # The loop of AutoencoderKLWan._decode (models/autoencoders/autoencoder_kl_wan.py, 0.42)
        x = vae.post_quant_conv(piece.to(vae.device, vae.dtype))
        start = 0
        while start < x.shape[2]:
            end = start + (1 if first else chunk)
            video = vae.decoder(
                x[:, :, start:end], feat_cache=memory, feat_idx=[0], first_chunk=first
            )
            if vae.config.patch_size is not None:
                video = unpatchify(video, patch_size=vae.config.patch_size)
            yield video.clamp(-1, 1)
            start, first = end, False


def decode_latents(decoder: Decoder, latents_BCTHW: Tensor, stats: LatentStats) -> Tensor:
    """Video in [-1, 1] from normalised latents."""
    return decoder.decode(stats.unnormalise(latents_BCTHW))


@torch.no_grad()
def encode_video(vae: Any, pixels_BCTHW: Tensor) -> Tensor:
    """Normalised latents, float32, of video (B, 3, 4k + 1 frames, height, width) in [-1, 1].

    The mode of the posterior, as diffusers' image-to-video takes it. One frame gives one latent.
    """
    pixels = pixels_BCTHW.to(vae.device, vae.dtype)
    raw = vae.encode(pixels).latent_dist.mode().float()
    return LatentStats.of(vae.config).normalise(raw)


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 frames (frames, height, width, 3) -> (1, 3, frames, height, width) in [-1, 1]."""
    unit = torch.from_numpy(np.ascontiguousarray(frames)).float() / 255
    return (unit * 2 - 1).permute(3, 0, 1, 2)[None]


def to_frames(video_BCTHW: Tensor) -> NDArray[np.uint8]:
    """Video in [-1, 1] -> uint8 frames (B, frames, height, width, 3), rounded and clipped."""
    unit = (video_BCTHW.float() * 0.5 + 0.5).clamp(0, 1)
    frames: NDArray[np.uint8] = (
        (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()
    )
    return frames


# ---- the hash that latents, students and decoders are bound to ----


def hash_vae(vae: Any) -> str:
    """SHA-256 over a VAE's weights and latent statistics, as loaded: its dtype counts."""
    return hash_vae_weights(vae.config, vae.state_dict().items())


def hash_vae_folder(folder: Path) -> str:
    """`hash_vae` of a saved VAE, from its files, one tensor in memory at a time."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no safetensors weights")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder} has no config.json that can be read") from None

    def read() -> Iterable[tuple[str, Tensor]]:
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (a handle, not a dict)
                    yield name, tensors.get_tensor(name)

    return hash_vae_weights(config, read())


def hash_vae_weights(config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """`hash_vae` of weights by diffusers' names, and of the statistics in a VAE's config."""
    parts = {}
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)} ".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        parts[name] = digest.hexdigest()
    stats = LatentStats.of(config)
    return hash_text(
        json.dumps([stats.mean, stats.std]), *(f"{name} {parts[name]}" for name in sorted(parts))
    )
