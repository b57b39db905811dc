"""Light decoders for a Wan VAE: the whole architecture, its cost and its reach.

Stages follow the teacher's decoder (middle block, then its up blocks) and end on the same grids.
All but the last two convolve depthwise in space and time and mix channels by 1x1x1; the last two
convolve in full. No attention, so that time and space can be cut anywhere. Knows no files.
"""

# B batch  C channels  T latent frames  F frames  H rows  W columns

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape

FULL_STAGES = 2
"""Stages at the end with full 3D convolutions."""

Form = Literal["3d", "2d"]
"""3D convolutions, or 2D ones on shifted frames; equal to rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LightConfig:
    """Shape of a light decoder; one entry a stage."""

    latent_channels: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    """Residual blocks of two convolutions."""
    temporal_layers: tuple[int, ...]
    """How many of a stage's blocks, from its first, look at other frames."""
    upsample: tuple[tuple[int, int], ...]
    """(time, space) factors at the end of each stage."""
    patch: int
    """Pixels a side that the last convolution makes at once."""
    causal: bool
    """True: no frame needs a later latent. False: both neighbours are seen, up to `reach`."""
    temporal_input: bool
    """The first convolution looks at other latents."""

    def __post_init__(self) -> None:
        counts = {len(self.widths), len(self.layers), len(self.temporal_layers), len(self.upsample)}
        if len(counts) != 1 or len(self.widths) < FULL_STAGES:
            raise UserError(
                "widths, layers, temporal_layers and upsample need one entry for each of at least "
                f"{FULL_STAGES} stages"
            )
        numbers = (self.latent_channels, self.patch, *self.widths, *map(math.prod, self.upsample))
        if min(numbers) < 1 or min(self.layers) < 0:
            raise UserError("a light decoder's widths and factors have to be at least 1")

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "LightConfig":
        """From JSON values, where tuples are lists. UserError for what is missing."""
        try:
            values = {name: table[name] for name in cls.__dataclass_fields__}
        except KeyError as error:
            raise UserError(f"the light decoder's config has no {error}") from None
        for name in ("widths", "layers", "temporal_layers"):
            values[name] = tuple(values[name])
        values["upsample"] = tuple((time, space) for time, space in values["upsample"])
        return cls(**values)

    @property
    def codec(self) -> Codec:
        """Frames a latent, pixels a latent, latent channels."""
        return Codec(
            time=math.prod(time for time, _ in self.upsample),
            space=math.prod(space for _, space in self.upsample) * self.patch,
            channels=self.latent_channels,
        )


# ---- named sizes ----


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Widths and layers for five stages."""

    widths: tuple[int, int, int, int, int]
    layers: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)


SIZES = {
    "base": Size(widths=(512, 512, 256, 144, 144)),
    "slim": Size(widths=(512, 512, 256, 128, 64)),
    "tiny": Size(widths=(48, 48, 40, 32, 24), layers=(1, 1, 1, 1, 1)),
    "micro": Size(widths=(32, 32, 24, 16, 12), layers=(1, 1, 1, 1, 1)),
}
"""TFLOP for 31x44x80 latents of Wan2.2, causal: base 158, slim 52. `flops` computes them; tiny and
micro are for small teachers and tests."""


def light_config(size: str, teacher: Mapping[str, Any], *, causal: bool) -> LightConfig:
    """The named size for a teacher with this `AutoencoderKLWan` config.

    A teacher of fewer stages drops early ones. One without patches makes its last doubling of
    space a patch, so that no stage works at full resolution. UserError for an unknown size.
    """
    if size not in SIZES:
        raise UserError(f"there is no size {size!r}", hint=f"known: {', '.join(SIZES)}")
    ups = len(teacher["dim_mult"])
    in_time = (*reversed(teacher["temperal_downsample"]), False)
    factors = [(1, 1)]  # the middle block
    factors += [(2 if in_time[i] else 1, 2 if i < ups - 1 else 1) for i in range(ups)]
    patch = teacher.get("patch_size") or 1
    if patch == 1 and (1, 2) in factors:
        last = len(factors) - 1 - factors[::-1].index((1, 2))
        factors[last] = (1, 1)
        patch = 2
    stages = ups + 1
    if not FULL_STAGES <= stages <= len(SIZES[size].widths):
        raise UserError(f"a teacher with {stages} decoder stages has no light decoder here")
    pick = (0, *range(len(SIZES[size].widths) - stages + 1, len(SIZES[size].widths)))
    layers = tuple(SIZES[size].layers[index] for index in pick)
    separable = stages - FULL_STAGES
    return LightConfig(
        latent_channels=teacher.get("z_dim", 16),
        widths=tuple(SIZES[size].widths[index] for index in pick),
        layers=layers,
        # One look a stage where latents are far apart keeps the reach at a few latents.
        temporal_layers=tuple(
            count if causal or index >= separable else min(1, count)
            for index, count in enumerate(layers)
        ),
        upsample=tuple(factors),
        patch=patch,
        causal=causal,
        temporal_input=causal,
    )


# ---- the network ----


@dataclass(slots=True)
class Cache:
    """What a causal decoder remembers between chunks of one video: the last frames that each
    convolution saw. One video, one cache; the decoder itself keeps nothing."""

    frames: dict[str, Tensor] = field(default_factory=dict)
    latents: int = 0
    """Latents decoded so far."""

    @property
    def nbytes(self) -> int:
        """Memory that the remembered frames hold."""
        return sum(tensor.nbytes for tensor in self.frames.values())


class LightDecoder(nn.Module):
    """Un-normalised latents (B, C, T, H, W) to video (B, 3, F, rows, columns), about [-1, 1]."""

    def __init__(self, config: LightConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec
        self.causal, self.single_first = config.causal, True
        self.reach = reach(config)
        self.reach_space: int | None = reach_space(config)
        causal = config.causal
        time_in = 3 if config.temporal_input else 1
        self.conv_in = Conv(config.latent_channels, config.widths[0], time_in, causal=causal)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.widths)))
        self.norm_out = Norm(config.widths[-1])
        self.conv_out = Conv(config.widths[-1], 3 * config.patch**2, 3, causal=causal)
        for name, module in self.named_modules():
            if isinstance(module, Conv):
                module.name = name

    def forward(
        self, latents: Tensor, cache: Cache | None = None, taps: list[Tensor] | None = None
    ) -> Tensor:
        """Decode a whole video, or with `cache` its next latents.

        The first latent of a video gives 1 frame, every other one `codec.time`. Into `taps` goes
        the output of every stage, for distillation.
        """
        if latents.ndim != 5 or latents.shape[1] != self.codec.channels or not latents.shape[2]:
            raise UserError(
                f"latents of shape {tuple(latents.shape)} do not fit this decoder",
                hint=f"expected (batch, {self.codec.channels}, latent frames, rows, columns)",
            )
        if cache is not None and not self.causal:
            raise UserError("a non-causal decoder keeps no cache", hint="decode it in tiles")
        first = cache is None or cache.latents == 0
        x = self.conv_in(latents, cache)
        for stage in self.stages:
            x = stage(x, cache, first)
            if taps is not None:
                taps.append(x)
        x = self.conv_out(functional.silu(self.norm_out(x)), cache)
        if cache is not None:
            cache.latents += latents.shape[2]
        return shuffle(x, 1, self.config.patch)

    def new_cache(self) -> Cache:
        """Memory for one video that is decoded in chunks."""
        return Cache()

    def set_form(self, form: Form, *, depthwise: Form | None = None) -> None:
        """Choose how the convolutions run; `depthwise` for those of one channel each."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.form = form if module.conv.groups == 1 or depthwise is None else depthwise


class Stage(nn.Module):
    """Residual blocks at one width, then a step to the next grid and width."""

    def __init__(self, config: LightConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        after = config.widths[min(index + 1, len(config.widths) - 1)]
        self.factors = config.upsample[index]
        time, space = self.factors
        full = index >= len(config.widths) - FULL_STAGES
        self.blocks = nn.ModuleList(
            Block(width, layer < config.temporal_layers[index], full=full, causal=config.causal)
            for layer in range(config.layers[index])
        )
        self.step: nn.Module | None = None
        if after != width or time * space > 1:
            self.step = nn.Conv3d(width, after * time * space**2, 1)
            _repeat_outputs(self.step, time * space**2)

    def forward(self, x: Tensor, cache: Cache | None, first: bool) -> Tensor:
        """Next grid; a video's first frame stays one frame."""
        for block in self.blocks:
            x = block(x, cache)
        if self.step is None:
            return x
        time, space = self.factors
        x = shuffle(self.step(x), time, space)
        return x[:, :, time - 1 :] if first else x


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int, temporal: bool, *, full: bool, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(width), Norm(width)
        time = 3 if temporal else 1
        if full:
            self.conv1: nn.Module = Conv(width, width, time, causal=causal)
            self.conv2: nn.Module = Conv(width, width, time, causal=causal)
        else:
            self.conv1 = Separable(width, time, causal=causal)
            self.conv2 = Separable(width, 1, causal=causal)

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Same shape."""
        inner = self.conv1(functional.silu(self.norm1(x)), cache)
        return x + self.conv2(functional.silu(self.norm2(inner)), cache)


class Separable(nn.Module):
    """Depthwise in space and time, then channels mixed by 1x1x1."""

    def __init__(self, width: int, time: int, *, causal: bool) -> None:
        super().__init__()
        self.depthwise = Conv(width, width, time, causal=causal, groups=width)
        self.pointwise = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Same shape."""
        mixed: Tensor = self.pointwise(self.depthwise(x, cache))
        return mixed


class Conv(nn.Module):
    """3x3 in space and `time` frames; zeros before a video, its last frame repeated after it."""

    def __init__(
        self, inputs: int, outputs: int, time: int, *, causal: bool, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, (time, 3, 3), padding=(0, 1, 1), groups=groups)
        self.before = time - 1 if causal else time // 2
        self.after = 0 if causal else time // 2
        self.form: Form = "3d"
        self.name = ""

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """As many frames out as in."""
        if self.before:
            past = None if cache is None else cache.frames.get(self.name)
            if past is None:  # channels last, or what they are joined to would lose that layout
                past = x.new_zeros(x.shape[0], self.before, *x.shape[3:], x.shape[1])
                past = past.movedim(-1, 1)
            parts = [past, x] + [x[:, :, -1:]] * self.after
            x = torch.cat(parts, dim=2)
            if cache is not None:
                cache.frames[self.name] = x[:, :, -self.before :].clone()
        return conv_as_2d(self.conv, x) if self.form == "2d" else self.conv(x)


class Norm(nn.Module):
    """Root mean square over channels, at every point by itself; computed in float32 or better."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype."""
        # channels_last_3d makes the moved view contiguous, and the norm one kernel
        y = functional.rms_norm(x.movedim(1, -1), self.gain.shape, self.gain.to(x.dtype), eps=1e-6)
        return y.movedim(-1, 1)


def shuffle(x: Tensor, time: int, space: int) -> Tensor:
    """Channels (C, time, space, space) to the grid: (B, C, T * time, H * space, W * space), laid
    out channels last."""
    if time == space == 1:
        return x
    batch, channels, frames, rows, columns = x.shape
    channels //= time * space**2
    x = x.movedim(1, -1).reshape(batch, frames, rows, columns, channels, time, space, space)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(batch, frames * time, rows * space, columns * space, channels).movedim(-1, 1)


def conv_as_2d(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """`conv(x)` by 2D convolutions, for devices with slow 3D ones: a full convolution takes the
    frames that it sees as more channels, a depthwise one is a sum over them."""
    time, rows, columns = conv.kernel_size[0], *x.shape[3:]
    frames = x.shape[2] - time + 1
    shifted = [x[:, :, shift : shift + frames].movedim(1, -1) for shift in range(time)]
    weights = list(conv.weight.unbind(2))
    if conv.groups == 1:
        shifted, weights = [torch.cat(shifted, dim=-1)], [torch.cat(weights, dim=1)]
    total: Tensor | None = None
    for part, weight in zip(shifted, weights, strict=True):
        flat = part.reshape(-1, rows, columns, part.shape[-1]).movedim(-1, 1)
        bias = conv.bias if total is None else None
        term = functional.conv2d(flat, weight, bias, padding=conv.padding[1:], groups=conv.groups)
        total = term if total is None else total + term
    assert total is not None
    return total.movedim(1, -1).reshape(x.shape[0], frames, rows, columns, -1).movedim(-1, 1)


def _repeat_outputs(step: nn.Conv3d, times: int) -> None:
    """Start as nearest-neighbour upsampling: no checkerboard to unlearn."""
    assert step.bias is not None
    with torch.no_grad():
        for parameter in (step.weight, step.bias):
            parameter.copy_(parameter[::times].repeat_interleave(times, dim=0))


# ---- what it costs, and how far it sees ----


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """One convolution, or with `factors` the move to the next grid."""

    stage: int
    kernel: tuple[int, int] = (1, 1)
    """Frames; rows and columns."""
    weights: int = 0
    """Multiplications for one output point over all outputs, kernel included."""
    factors: tuple[int, int] | None = None


def _layers(config: LightConfig) -> Iterator[_Layer]:
    """Every convolution and grid step in order; stage -1 is the input, the last the output."""
    time_in = 3 if config.temporal_input else 1
    width = config.widths[0]
    yield _Layer(
        stage=-1, kernel=(time_in, 3), weights=time_in * 9 * config.latent_channels * width
    )
    count = len(config.widths)
    for stage, width in enumerate(config.widths):
        full = stage >= count - FULL_STAGES
        for layer in range(config.layers[stage]):
            time = 3 if layer < config.temporal_layers[stage] else 1
            for kernel_time in (time, time if full else 1):
                taps = kernel_time * 9
                yield _Layer(
                    stage=stage,
                    kernel=(kernel_time, 3),
                    weights=taps * width**2 if full else taps * width,
                )
                if not full:
                    yield _Layer(stage=stage, weights=width**2)
        after = config.widths[min(stage + 1, count - 1)]
        up_time, up_space = config.upsample[stage]
        if after != width or up_time * up_space > 1:
            yield _Layer(stage=stage, weights=width * after * up_time * up_space**2)
        yield _Layer(stage=stage, factors=config.upsample[stage])
    yield _Layer(stage=count, kernel=(3, 3), weights=27 * config.widths[-1] * 3 * config.patch**2)


def flops_by_stage(config: LightConfig, latents: LatentShape) -> list[int]:
    """Floating-point operations (2 a multiply-add) of the convolutions for one whole video: input,
    each stage, output."""
    counts = [0] * (len(config.widths) + 2)
    frames, rows, columns = latents.frames, latents.height, latents.width
    for layer in _layers(config):
        if layer.factors is not None:
            time, space = layer.factors
            frames = frames * time - (time - 1)
            rows, columns = rows * space, columns * space
        counts[layer.stage + 1] += 2 * layer.weights * frames * rows * columns
    return counts


def flops(config: LightConfig, latents: LatentShape) -> int:
    """Floating-point operations to decode one whole video."""
    return sum(flops_by_stage(config, latents))


def parameter_count(config: LightConfig) -> int:
    """Parameters, without building weights."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LightDecoder(config).parameters())


def reach(config: LightConfig) -> tuple[int, int]:
    """Latents before and after a latent that its frames depend on; all others change nothing."""
    return reach_of(
        [
            (
                (layer.kernel[0] - 1) // (1 if config.causal else 2),
                0 if config.causal else layer.kernel[0] // 2,
                layer.factors[0] if layer.factors else 1,
            )
            for layer in _layers(config)
        ],
        config.codec.time,
    )


def reach_of(steps: Sequence[tuple[int, int, int]], time: int) -> tuple[int, int]:
    """`reach` of any decoder: for each step in order the frames it looks back and ahead, and the
    factor by which it multiplies frames afterwards. `time` is the product of the factors."""
    latent = 1000
    low, high = time * latent - (time - 1), time * latent  # the frames of that latent
    for before, after, factor in reversed(steps):
        low, high = (low + factor - 1) // factor, (high + factor - 1) // factor
        low, high = low - before, high + after
    return latent - low, high - latent


def reach_space(config: LightConfig) -> int:
    """Latent rows or columns to each side that a latent's pixels depend on."""
    latent, size = 1000, config.codec.space
    low, high = latent * size, (latent + 1) * size - 1
    low, high = low // config.patch, high // config.patch
    for layer in reversed(list(_layers(config))):
        if layer.factors is not None:
            low, high = low // layer.factors[1], high // layer.factors[1]
        low, high = low - layer.kernel[1] // 2, high + layer.kernel[1] // 2
    return max(latent - low, high - latent)
