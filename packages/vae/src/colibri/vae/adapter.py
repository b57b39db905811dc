"""A light decoder as diffusers knows VAEs: `pipe.vae = light`, save_pretrained, from_pretrained.

Decodes itself; to encode it asks its teacher, whose latents it was trained on.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.wan.decoder import LatentStats, hash_vae
from colibri.vae import forms
from colibri.vae.decode import WHOLE, Plan, VideoDecoder
from colibri.vae.light import LightConfig, LightDecoder


class LightVAE(ModelMixin, ConfigMixin):
    """Light decoder in the place of an `AutoencoderKLWan`."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        light: dict[str, Any],
        latents_mean: list[float],
        latents_std: list[float],
        teacher: dict[str, str],
        z_dim: int,
        scale_factor_temporal: int,
        scale_factor_spatial: int,
        reach: list[int],
        training: dict[str, Any] | None = None,
    ) -> None:
        """Use `LightVAE.of`: it derives what follows from the others."""
        super().__init__()
        self.decoder = LightDecoder(LightConfig.of(light))
        self.plan, self.use_slicing = WHOLE, False
        self._form_of = ""  # device type that the convolutions' form was chosen for
        self._teacher: list[Any] = []  # in a list, so that it is no submodule

    @classmethod
    def of(
        cls,
        config: LightConfig,
        stats: LatentStats,
        *,
        teacher: Mapping[str, str],
        training: Mapping[str, Any] | None = None,
    ) -> "LightVAE":
        """A new, untrained one. `teacher` holds id, revision and hash."""
        from dataclasses import asdict

        from colibri.vae.light import reach

        table = asdict(config)
        return cls(
            light={name: _lists(value) for name, value in table.items()},
            latents_mean=list(stats.mean),
            latents_std=list(stats.std),
            teacher=dict(teacher),
            z_dim=config.latent_channels,
            scale_factor_temporal=config.codec.time,
            scale_factor_spatial=config.codec.space,
            reach=list(reach(config)),
            training=dict(training or {}),
        )

    @property
    def video_decoder(self) -> VideoDecoder:
        """Itself, as `load_decoder` returns it."""
        return VideoDecoder(
            core=self.decoder,
            stats=LatentStats.of(dict(self.config)),
            teacher=dict(self.config["teacher"]),
        )

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Un-normalised latents to video clamped to [-1, 1], as diffusers' VAEs do it."""
        if self._form_of != z.device.type:
            self._form_of = z.device.type
            forms.apply(self.decoder, forms.chosen(self.decoder, z.device))
        decoder = self.video_decoder
        parts = z.to(self.dtype).split(1 if self.use_slicing else len(z))
        video = torch.cat([decoder.decode(part, self.plan) for part in parts]).clamp_(-1, 1)
        return DecoderOutput(sample=video) if return_dict else (video,)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """What the teacher's encoder gives, in the teacher's precision, on the device of `x`.

        UserError where there is no teacher, or another one.
        """
        if not self._teacher:
            self._teacher[:] = [self._find_teacher()]
        teacher = self._teacher[0].to(x.device)
        return teacher.encode(x.to(teacher.dtype), return_dict=return_dict)

    def attach_teacher(self, vae: Any) -> None:
        """Encode with `vae`, whose hash has to be the one in the config, in whichever dtype."""
        wanted = self.config["teacher"].get("hash")
        if not any(wanted == hash_vae(_Cast(vae, kind)) for kind in (vae.dtype, *_DTYPES)):
            check_teacher(self.config["teacher"], hash_vae(vae), "this VAE")
        self._teacher[:] = [vae]

    def enable_tiling(
        self,
        tile_sample_min_height: int | None = None,
        tile_sample_min_width: int | None = None,
        tile_sample_stride_height: int | None = None,
        tile_sample_stride_width: int | None = None,
        *,
        chunk: int | None = 8,
        tile: int | None = None,
    ) -> None:
        """Decode in chunks of latents, and in tiles of latent rows and columns; exact.

        The first four are diffusers': a tile has the smaller of height and width in pixels. Strides
        count for nothing, since what tiles overlap by follows from the decoder.
        """
        sides = [side for side in (tile_sample_min_height, tile_sample_min_width) if side]
        if tile is None and sides:
            tile = max(1, min(sides) // self.decoder.codec.space)
        self.plan = Plan(chunk=chunk, tile=tile)

    def enable_slicing(self) -> None:
        """Decode the videos of a batch one after the other."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Decode a batch at once."""
        self.use_slicing = False

    def disable_tiling(self) -> None:
        """Decode videos whole."""
        self.plan = WHOLE

    def forward(self, z: Tensor) -> Tensor:
        """Unclamped video of un-normalised latents."""
        video: Tensor = self.decoder(z)
        return video

    def _find_teacher(self) -> Any:
        from colibri.core.wan.decoder import hash_vae_folder
        from colibri.vae.load import load_teacher, teacher_folder

        named = self.config["teacher"]
        if not named.get("id"):
            raise UserError(
                "a light decoder cannot encode, and its folder names no teacher VAE",
                hint="call attach_teacher(vae)",
            )
        try:
            folder = teacher_folder(named["id"], revision=named.get("revision"))
            check_teacher(named, hash_vae_folder(folder), str(folder))
            vae = load_teacher(folder)
        except UserError as error:
            raise UserError(
                f"to encode, this light decoder needs its teacher VAE {named['id']!r}: "
                f"{error.message}",
                hint="call attach_teacher(vae)",
            ) from None
        vae = vae.to(self.device)
        return vae if vae.dtype == self.dtype else vae.to(self.dtype)


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class _Cast:
    """A VAE's weights in another dtype, for hashing: files are often in half precision."""

    def __init__(self, vae: Any, dtype: torch.dtype) -> None:
        self.vae, self.dtype, self.config = vae, dtype, vae.config

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.to(self.dtype) for name, value in self.vae.state_dict().items()}


def check_teacher(named: Mapping[str, str], found: str, where: str) -> None:
    """UserError where a decoder was trained for another VAE than the one with hash `found`."""
    wanted = named.get("hash")
    if wanted and wanted != found:
        raise UserError(
            f"{where} ({found[:12]}) is not the VAE that this decoder was trained for "
            f"({wanted[:12]})",
            hint="use that VAE, or train the decoder again",
        )


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value
