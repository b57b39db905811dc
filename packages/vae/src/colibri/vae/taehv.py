"""TAEHV's preview decoders for Wan (`taew2_1`, `taew2_2`), from their original weights or anew.

2D convolutions only; a memory block also sees the frame before. Layer numbers and order of
operations: madebyollin/taehv taehv.py@115aaa7. They were trained on normalised latents and pixels
in [0, 1]; here they take un-normalised latents and give [-1, 1], as every decoder does. New ones
are for comparison with light decoders: any widths, any latents of 4 frames and 8 or 16 pixels.
"""

# B batch  C channels  T latent frames  F frames  H rows  W columns

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.shards import write_json_whole
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.family import WAN21_MEAN, WAN21_STD, WAN22_MEAN, WAN22_STD
from colibri.vae.light import Cache, reach_of, shuffle

STATS = {
    16: LatentStats(mean=WAN21_MEAN, std=WAN21_STD),
    48: LatentStats(mean=WAN22_MEAN, std=WAN22_STD),
}
"""By latent channels."""

TIME = (1, 2, 2)
"""Frame factors of the three stages."""


SIZES = {
    "base": (512, 256, 128, 64),
    "slim": (256, 128, 64, 64),
    "tiny": (64, 48, 32, 24),
    "micro": (24, 20, 16, 12),
}
"""Widths by name. slim has those of taew2_1 and taew2_2; tiny and micro are for small teachers."""


class PreviewDecoder(nn.Module):
    """Un-normalised latents (B, C, T, H, W) to video (B, 3, F, rows, columns), about [-1, 1].

    The network alone, without training form: weights keep the names `decoder.N...`.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int],
        channels: int,
        patch: int,
        stats: LatentStats | None = None,
    ) -> None:
        """`stats` of the latents; None: those of Wan with that many channels."""
        super().__init__()
        if stats is None and channels not in STATS:
            raise UserError(f"TAEHV weights for {channels} latent channels are not those of Wan")
        self.stats = stats or STATS[channels]
        self.widths = widths
        self.codec = Codec(time=math.prod(TIME), space=8 * patch, channels=channels)
        self.patch, self.causal, self.single_first = patch, True, True
        steps = [step for time in TIME for step in ([(1, 0, 1)] * 3 + [(0, 0, time)])]
        self.reach = reach_of(steps, self.codec.time)
        self.reach_space: int | None = None
        layers: list[nn.Module] = [nn.Identity(), _conv(channels, widths[0]), nn.ReLU()]
        for stage, time in enumerate(TIME):
            width, after = widths[stage], widths[stage + 1]
            layers += [_Memory(width, f"{stage}.{block}") for block in range(3)]
            layers += [nn.Upsample(scale_factor=2), _Grow(width, time)]
            layers += [_conv(width, after, bias=False)]
        layers += [nn.ReLU(), _conv(widths[3], 3 * patch**2)]
        self.decoder = nn.ModuleList(layers)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "PreviewDecoder":
        """Sizes from the weights themselves. UserError where they are not TAEHV's."""
        weights = {key: value for key, value in weights.items() if key.startswith("decoder.")}
        try:
            first, last = weights["decoder.1.weight"], weights["decoder.22.weight"]
            widths = tuple(weights[f"decoder.{i}.conv.0.weight"].shape[0] for i in (3, 9, 15))
            patch = math.isqrt(last.shape[0] // 3)
            model = cls((*widths, last.shape[1]), first.shape[1], patch)  # type: ignore[arg-type]
            model.load_state_dict({**weights, **_last_frames(weights, model)})
        except (KeyError, RuntimeError, IndexError):
            raise UserError(
                "these weights have not the layers of TAEHV's taew2_1 or taew2_2"
            ) from None
        return model

    @classmethod
    def sized(cls, size: str, codec: Codec, stats: LatentStats) -> "PreviewDecoder":
        """A new one for these latents. UserError for an unknown size or another codec."""
        if size not in SIZES:
            raise UserError(f"there is no size {size!r}", hint=f"known: {', '.join(SIZES)}")
        if codec.time != math.prod(TIME) or codec.space not in (8, 16):
            raise UserError(
                f"a 2d decoder takes latents of {math.prod(TIME)} frames and 8 or 16 pixels, not "
                f"of {codec.time} and {codec.space}"
            )
        return cls(SIZES[size], codec.channels, codec.space // 8, stats)

    def forward(self, latents: Tensor, cache: Cache | None = None) -> Tensor:
        """Decode a whole video, or with `cache` its next latents."""
        if latents.ndim != 5 or latents.shape[1] != self.codec.channels or not latents.shape[2]:
            raise UserError(
                f"latents of shape {tuple(latents.shape)} do not fit this decoder",
                hint=f"expected (batch, {self.codec.channels}, latent frames, rows, columns)",
            )
        batch = latents.shape[0]
        first = cache is None or cache.latents == 0
        x = torch.tanh(self.stats.normalise(latents) / 3) * 3
        x = x.transpose(1, 2).flatten(0, 1)
        for layer in self.decoder:
            x = layer(x, batch, cache) if isinstance(layer, _Memory) else layer(x)
        video = x.unflatten(0, (batch, -1)).transpose(1, 2)
        if cache is not None:
            cache.latents += latents.shape[2]
        if first:
            video = video[:, :, self.codec.time - 1 :]
        return shuffle(video, 1, self.patch) * 2 - 1

    def new_cache(self) -> Cache:
        """Memory for one video that is decoded in chunks."""
        return Cache()


CLASS = "PreviewDecoder"
"""In the config of a folder of `save`."""


def save(
    folder: Path,
    decoder: PreviewDecoder,
    *,
    teacher: Mapping[str, str],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Config and weights into `folder`, which has to exist; `load` reads them."""
    from safetensors.torch import save_file

    table = {
        "_class_name": CLASS,
        "widths": list(decoder.widths),
        "z_dim": decoder.codec.channels,
        "patch": decoder.patch,
        "latents_mean": list(decoder.stats.mean),
        "latents_std": list(decoder.stats.std),
        "teacher": dict(teacher),
        "training": dict(training or {}),
    }
    save_file(
        {name: value.contiguous() for name, value in decoder.state_dict().items()},
        folder / "diffusion_pytorch_model.safetensors",
    )
    write_json_whole(folder / "config.json", table)


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> PreviewDecoder:
    """From what `save` wrote. UserError where config and weights do not belong together."""
    try:
        widths = tuple(config["widths"])
        stats = LatentStats.of(config)
        model = PreviewDecoder(widths, config["z_dim"], config["patch"], stats)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise UserError(
            "weights and config of this 2d decoder do not belong together",
            hint="train or copy it again",
        ) from None
    return model


def _last_frames(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Older files grow frames that are not used: of those the last count."""
    own: dict[str, Any] = model.state_dict()
    return {
        key: value[-own[key].shape[0] :]
        for key, value in weights.items()
        if key in own and value.ndim == 4 and value.shape[0] > own[key].shape[0]
    }


class _Memory(nn.Module):
    """Residual block on a frame and the one before it; zeros before the first."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor, batch: int, cache: Cache | None) -> Tensor:
        frames = x.unflatten(0, (batch, -1))
        past = None if cache is None else cache.frames.get(self.name)
        if past is None:
            past = torch.zeros_like(frames[:, :1])
        if cache is not None:
            cache.frames[self.name] = frames[:, -1:].clone()
        before = torch.cat([past, frames[:, :-1]], dim=1).flatten(0, 1)
        return functional.relu(self.conv(torch.cat([x, before], dim=1)) + x)


class _Grow(nn.Module):
    """Frames out of channels, the frame being the slow one of them."""

    def __init__(self, width: int, time: int) -> None:
        super().__init__()
        self.time = time
        self.conv = nn.Conv2d(width, width * time, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out.unflatten(1, (self.time, -1)).flatten(0, 1)


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
