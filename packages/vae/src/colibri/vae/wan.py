"""The full Wan VAE as a decoder: explicit cache, several latents a call, no clamp; and as teacher.

Drives the decoder of diffusers' `AutoencoderKLWan` without its own loop, which takes one latent a
call and keeps its cache in the model. Results differ from diffusers' by rounding only.
"""

# B batch  C channels  T latent frames  F frames

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from colibri.core.errors import UserError
from colibri.core.wan.family import codec_of
from colibri.vae.turbo import unpatchify


@dataclass(slots=True)
class WanCache:
    """The frames that each causal convolution saw last, in the order of the decoder's visits."""

    slots: list[Any] = field(default_factory=list)
    latents: int = 0


class WanCore(nn.Module):
    """Un-normalised latents (B, C, T, H, W) to video (B, 3, F, rows, columns), unclamped."""

    def __init__(self, vae: Any, *, group: int = 4) -> None:
        super().__init__()
        self.vae = vae
        self.group = group
        self.codec = codec_of(vae.config)
        self.causal, self.single_first = True, True
        self.reach: tuple[int, int] | None = None
        self.reach_space: int | None = None
        kind = type(vae.decoder.conv_in)
        self.convolutions = sum(isinstance(part, kind) for part in vae.decoder.modules())

    def new_cache(self) -> WanCache:
        """Memory for one video that is decoded in chunks."""
        return WanCache(slots=[None] * self.convolutions)

    def forward(self, latents: Tensor, cache: WanCache | None = None) -> Tensor:
        """Decode a whole video, or with `cache` its next latents."""
        if latents.ndim != 5 or latents.shape[1] != self.codec.channels or not latents.shape[2]:
            raise UserError(
                f"latents of shape {tuple(latents.shape)} do not fit this decoder",
                hint=f"expected (batch, {self.codec.channels}, latent frames, rows, columns)",
            )
        cache = cache or self.new_cache()
        z = self.vae.post_quant_conv(latents)
        parts = []
        for part in z.split(self._sizes(z.shape[2], cache), dim=2):
            parts.append(self._call(part, cache))
            cache.latents += part.shape[2]
        video = torch.cat(parts, dim=2)
        patch = self.vae.config.patch_size
        return unpatchify(video, patch) if patch else video

    @torch.no_grad()
    def features(self, latents: Tensor, blocks: int = 3) -> list[Tensor]:
        """Outputs of the first decoder blocks (middle, then up blocks) for a whole video.

        Nothing after the last of them is computed.
        """
        modules = [self.vae.decoder.mid_block, *self.vae.decoder.up_blocks][:blocks]
        seen: list[list[Tensor]] = [[] for _ in modules]

        def keep(index: int) -> Any:
            def hook(_module: nn.Module, _inputs: Sequence[Any], output: Tensor) -> None:
                seen[index].append(output)
                if index == len(modules) - 1:
                    raise _Enough

            return hook

        handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(modules)]
        try:
            cache = self.new_cache()
            z = self.vae.post_quant_conv(latents)
            for part in z.split(self._sizes(z.shape[2], cache), dim=2):
                with contextlib.suppress(_Enough):
                    self._call(part, cache)
                cache.latents += part.shape[2]
        finally:
            for handle in handles:
                handle.remove()
        return [torch.cat(parts, dim=2) for parts in seen]

    def _sizes(self, count: int, cache: WanCache) -> list[int]:
        """Latents a call: the cache of the temporal upsampling starts with one by itself."""
        first = [1] if cache.latents == 0 else []
        rest = count - len(first)
        full, left = divmod(rest, self.group)
        return first + [self.group] * full + [left] * (left > 0)

    def _call(self, part: Tensor, cache: WanCache) -> Tensor:
        frames: Tensor = self.vae.decoder(
            part, feat_cache=cache.slots, feat_idx=[0], first_chunk=cache.latents == 0
        )
        return frames


class _Enough(Exception):
    """The last block that is wanted has run."""
