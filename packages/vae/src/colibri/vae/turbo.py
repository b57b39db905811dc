"""Decoders of the Turbo-VAED family, from their own config and weights.

Key names and order of operations are those of the published checkpoints: hustvl/Turbo-VAED and
AMD's light decoder (class AutoencoderKLTurboVAED), and the variant with Wan's resampling (class
TurboVAED). Lists in the config run from the pixels inwards. For inference only.
"""

# B batch  C channels  F frames  H rows  W columns

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.vae.light import reach_of, shuffle

CLASSES = ("AutoencoderKLTurboVAED", "TurboVAED")


@dataclass(frozen=True, kw_only=True, slots=True)
class TurboConfig:
    """What decides the network; one entry a stage, the first stage works on latents."""

    latent_channels: int
    out_channels: int
    widths: tuple[int, ...]
    """Of the up blocks; the middle block has the first."""
    layers: tuple[int, ...]
    """Of the middle block, then of the up blocks; so are `depthwise` and `noise`."""
    depthwise: tuple[bool, ...]
    noise: tuple[bool, ...]
    upsample: tuple[tuple[int, int], ...]
    """(time, space) factors of the up blocks."""
    patch: int
    kernel: int
    """Of depthwise convolutions, in all three dimensions."""
    causal: bool
    """Full convolutions look back only. Depthwise ones look both ways even so, as trained."""
    keeps_lead: bool
    """True: the first latent gives as many frames as the others (is_video_dc_ae)."""
    wan_resample: bool
    """Nearest-neighbour resampling as in Wan instead of pixel shuffling."""
    unpatchify: bool
    """The last convolution makes whole patches."""
    affine_shortcut: bool
    """The shortcut's norm is a layer norm with weights; else root mean square without."""
    eps: float

    @classmethod
    def of(cls, config: Mapping[str, Any], keys: frozenset[str]) -> "TurboConfig":
        """From a published config and the names of its weights. UserError for what cannot run."""
        try:
            widths = tuple(reversed(config["decoder_block_out_channels"]))
            layers = tuple(reversed(config["decoder_layers_per_block"]))
            scaling = tuple(reversed(config["decoder_spatio_temporal_scaling"]))
            channels = config["latent_channels"]
        except KeyError as error:
            raise UserError(f"the Turbo-VAED config has no {error}") from None
        stages, blocks = len(widths), len(widths) + 1
        only = _flags(config, "decoder_spatio_only", stages)
        if len(layers) != blocks or len(scaling) != stages:
            raise UserError(
                f"the Turbo-VAED config has {stages} widths; it needs {blocks} entries in "
                f"decoder_layers_per_block and {stages} in decoder_spatio_temporal_scaling"
            )
        if config.get("timestep_conditioning"):
            raise UserError("a Turbo-VAED decoder with timestep_conditioning cannot be run here")
        if set(config.get("upsample_factor") or [1]) != {1}:
            raise UserError("a Turbo-VAED decoder with upsample_factor other than 1 cannot be run")
        patch = config.get("patch_size", 4)
        if patch not in (1, 2, 4):
            raise UserError(f"a Turbo-VAED decoder has patch_size 1, 2 or 4, not {patch!r}")
        return cls(
            latent_channels=channels,
            out_channels=config.get("out_channels", 3),
            widths=widths,
            layers=layers,
            depthwise=_flags(config, "decoder_is_dw_conv", blocks),
            noise=_flags(config, "decoder_inject_noise", blocks),
            upsample=tuple(
                (1 if flat else 2, 2) if scale else (1, 1)
                for scale, flat in zip(scaling, only, strict=True)
            ),
            patch=patch,
            kernel=config.get("decoder_dw_kernel_size", 3),
            causal=bool(config.get("decoder_causal", False)),
            keeps_lead=bool(config.get("is_video_dc_ae", False)),
            wan_resample=any(".resample." in key for key in keys),
            unpatchify=bool(config.get("useunpatchify", False)),
            affine_shortcut=any(key.endswith("norm3.weight") for key in keys),
            eps=config.get("resnet_norm_eps", 1e-6),
        )

    @property
    def codec(self) -> Codec:
        """Derived: not every published config tells it, nor rightly."""
        time, space = 1, self.patch
        for factors in self.upsample:
            time, space = time * factors[0], space * factors[1]
        return Codec(time=time, space=space, channels=self.latent_channels)


def _flags(config: Mapping[str, Any], name: str, count: int) -> tuple[bool, ...]:
    flags = tuple(map(bool, reversed(config.get(name) or [False] * count)))
    if len(flags) != count:
        raise UserError(f"the Turbo-VAED config has {len(flags)} entries in {name}, not {count}")
    return flags


class TurboDecoder(nn.Module):
    """Un-normalised latents (B, C, T, H, W) to video (B, 3, F, rows, columns), about [-1, 1]."""

    def __init__(self, config: TurboConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec
        # The family's causal flag does not hold for depthwise stages: always decoded in windows.
        self.causal = False
        self.single_first = not config.keeps_lead
        self.reach = reach_of(list(_steps(config)), self.codec.time)
        self.reach_space: int | None = None
        width = config.widths[0]
        self.conv_in = _Conv(config.latent_channels, width, causal=config.causal)
        self.mid_block = _Middle(config)
        self.up_blocks = nn.ModuleList(_Up(config, i) for i in range(len(config.widths)))
        width = config.widths[-1]
        rounds = 0 if config.unpatchify else {1: 0, 2: 1, 4: 2}[config.patch]
        if width % 4**rounds:
            raise UserError(f"the last width {width} is too narrow for patch_size {config.patch}")
        for index in range(rounds):
            setattr(self, f"upsampler2d_{index + 1}", _Spread(width))
            width //= 4
        self.rounds = rounds
        outputs = config.out_channels * (config.patch**2 if config.unpatchify else 1)
        self.conv_out = _Conv(width, outputs, causal=config.causal)

    def new_cache(self) -> None:
        """There is none: this decoder looks ahead."""

    def forward(self, latents: Tensor, cache: None = None) -> Tensor:
        """Decode a whole video."""
        if latents.ndim != 5 or latents.shape[1] != self.codec.channels or not latents.shape[2]:
            raise UserError(
                f"latents of shape {tuple(latents.shape)} do not fit this decoder",
                hint=f"expected (batch, {self.codec.channels}, latent frames, rows, columns)",
            )
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        for index in range(self.rounds):
            x = self.get_submodule(f"upsampler2d_{index + 1}")(functional.silu(_rms(x)))
        x = self.conv_out(functional.silu(_rms(x)))
        return unpatchify(x, self.config.patch) if self.config.unpatchify else x


def _steps(config: TurboConfig) -> Iterator[tuple[int, int, int]]:
    """Frames back, frames ahead, factor: what `reach_of` walks."""

    def full(frames: int = 3) -> tuple[int, int, int]:
        around = frames - 1
        return (around, 0, 1) if config.causal else (around // 2, around // 2, 1)

    def residual(stage: int) -> Iterator[tuple[int, int, int]]:
        half = config.kernel // 2
        for _ in range(2):
            yield (half, half, 1) if config.depthwise[stage] else full()

    yield full()
    for _ in range(config.layers[0]):
        yield from residual(0)
    before = config.widths[0]
    for stage, width in enumerate(config.widths, start=1):
        if width != before:
            yield from residual(stage)
        before = width
        time, space = config.upsample[stage - 1]
        if space > 1:
            if time > 1 or not config.wan_resample:
                yield full()
            yield (0, 0, time)
        for _ in range(config.layers[stage]):
            yield from residual(stage)
    yield full()


class _Middle(nn.Module):
    def __init__(self, config: TurboConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.resnets = nn.ModuleList(
            _Residual(config, 0, width, width) for _ in range(config.layers[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x


class _Up(nn.Module):
    def __init__(self, config: TurboConfig, index: int) -> None:
        super().__init__()
        before, width = config.widths[max(index - 1, 0)], config.widths[index]
        stage = index + 1
        self.conv_in = _Residual(config, stage, before, width) if before != width else None
        scaled = config.upsample[index][1] > 1
        if scaled:
            kind = _WanResample if config.wan_resample else _Shuffle
            self.upsamplers = nn.ModuleList([kind(config, index)])
        else:
            self.upsamplers = nn.ModuleList()
        # Blocks after an upsampler begin with ReLU: is_upsampler_modified in the family's code.
        self.resnets = nn.ModuleList(
            _Residual(config, stage, width, width, relu=scaled) for _ in range(config.layers[stage])
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_in is not None:
            x = self.conv_in(x)
        for block in (*self.upsamplers, *self.resnets):
            x = block(x)
        return x


class _Residual(nn.Module):
    def __init__(
        self, config: TurboConfig, stage: int, inputs: int, outputs: int, *, relu: bool = False
    ) -> None:
        super().__init__()
        self.first = functional.relu if relu else functional.silu
        self.eps = config.eps

        def conv(ins: int, outs: int, kernel: int | None = None) -> nn.Module:
            if config.depthwise[stage]:
                return _Separable(ins, outs, kernel or config.kernel)
            return _Conv(ins, outs, kernel or 3, causal=config.causal)

        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.norm3 = None
        self.conv_shortcut = None
        if inputs != outputs:
            if config.affine_shortcut:
                self.norm3 = nn.LayerNorm(inputs, eps=config.eps)
            self.conv_shortcut = conv(inputs, outputs, 1)
        if config.noise[stage]:
            self.per_channel_scale1 = nn.Parameter(torch.zeros(inputs, 1, 1))
            self.per_channel_scale2 = nn.Parameter(torch.zeros(inputs, 1, 1))
        self.noise = config.noise[stage]

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(self.first(_rms(x)))
        if self.noise:
            inner = inner + _grain(inner, self.per_channel_scale1)
        inner = self.conv2(functional.silu(_rms(inner)))
        if self.noise:
            inner = inner + _grain(inner, self.per_channel_scale2)
        if self.conv_shortcut is not None:
            if self.norm3 is not None:
                x = self.norm3(x.movedim(1, -1)).movedim(-1, 1)
            else:
                x = _rms(x, self.eps)
            x = self.conv_shortcut(x)
        return inner + x


class _Conv(nn.Module):
    """3D convolution; zeros around in space, first and last frame repeated in time."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int, int] = 3,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        size = (kernel,) * 3 if isinstance(kernel, int) else kernel
        self.conv = nn.Conv3d(inputs, outputs, size, padding=(0, size[1] // 2, size[2] // 2))
        around = size[0] - 1
        self.pad = (around, 0) if causal else (around // 2, around // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(_pad_time(x, *self.pad))
        return out


class _Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.depthwise_conv = nn.Conv3d(
            inputs, inputs, kernel, padding=(0, half, half), groups=inputs
        )
        self.pointwise_conv = nn.Conv3d(inputs, outputs, 1)
        self.around = half

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise_conv(
            self.depthwise_conv(_pad_time(x, self.around, self.around))
        )
        return out


class _Shuffle(nn.Module):
    """Channels (C, row, column, frame) to the finer grid, after a convolution."""

    def __init__(self, config: TurboConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        self.time, self.space = config.upsample[index]
        self.drop = 0 if config.keeps_lead else self.time - 1
        self.conv = _Conv(width, width * self.time * self.space**2, causal=config.causal)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, _, frames, rows, columns = x.shape
        x = x.reshape(batch, -1, self.space, self.space, self.time, frames, rows, columns)
        x = x.permute(0, 1, 5, 4, 6, 2, 7, 3)
        x = x.reshape(batch, -1, frames * self.time, rows * self.space, columns * self.space)
        return x[:, :, self.drop :]


class _WanResample(nn.Module):
    """Frames by a temporal convolution, then nearest neighbours and a 2D convolution."""

    def __init__(self, config: TurboConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        self.time = config.upsample[index][0]
        if self.time > 1:
            self.time_conv = _Conv(width, 2 * width, (3, 1, 1), causal=config.causal)
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        if self.time > 1:
            pair = self.time_conv(x).unflatten(1, (2, -1))
            x = torch.stack((pair[:, 0], pair[:, 1]), dim=3).flatten(2, 3)[:, :, 1:]
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return _per_frame(self.resample, x)


class _Spread(nn.Module):
    """2D convolution, then pixels out of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(_per_frame(self.conv, x), 1, 2)


def _per_frame(conv: nn.Module, x: Tensor) -> Tensor:
    flat = x.transpose(1, 2)
    out: Tensor = conv(flat.flatten(0, 1)).unflatten(0, flat.shape[:2])
    return out.transpose(1, 2)


def _pad_time(x: Tensor, before: int, after: int) -> Tensor:
    return torch.cat([x[:, :, :1]] * before + [x] + [x[:, :, -1:]] * after, dim=2)


def _rms(x: Tensor, eps: float = 1e-8) -> Tensor:
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (x * torch.rsqrt(wide.square().mean(1, keepdim=True) + eps)).to(x.dtype)


def _grain(x: Tensor, scale: Tensor) -> Tensor:
    """One plane of noise for all frames, from torch's own generator."""
    plane = torch.randn(x.shape[-2:], device=x.device, dtype=x.dtype)
    return (plane * scale)[None, :, None]


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Wan's order: channels (C, column, row)."""
    batch, channels, frames, rows, columns = x.shape
    x = x.reshape(batch, channels // patch**2, patch, patch, frames, rows, columns)
    x = x.permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(batch, -1, frames, rows * patch, columns * patch)
