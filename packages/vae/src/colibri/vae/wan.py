"""The full Wan VAE's decoder, run faster: diffusers' modules and weights, walked in another way.

diffusers takes one latent a call, keeps its cache in the model, and copies frames to pad, to join
the cache, to upsample and to repeat channels. Here a cache is an object, a call takes several
latents (the first of a video among them), activations are written straight behind the remembered
frames, and upsampling followed by a 3x3 convolution is one 2x2 convolution on the coarse grid. Both
forms of the VAE (Wan2.1; Wan2.2 with its shortcuts) follow from its modules. Results differ from
diffusers' by rounding only. For inference: no gradients.
"""

# B batch  C channels  T latent frames  F frames  H rows  W columns

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.core.errors import UserError
from colibri.core.wan.family import codec_of
from colibri.vae.light import Cache, Form
from colibri.vae.turbo import unpatchify

VALUES_AT_ONCE = {"cpu": 2**21, "cuda": 2**29}
"""Values of the largest activation that a call may make, by device type: more latents a call gain
nothing beyond, and cost memory. One latent is always decoded."""

NARROW = 256
"""Channels below which a CPU runs sums of 2D convolutions: a decoder of 48 to 192 channels was
6% faster with them, one convolution of 256 channels 2.6 times slower (torch 2.13, float32, shared
machine)."""


class WanCore(nn.Module):
    """Un-normalised latents (B, C, T, H, W) to video (B, 3, F, rows, columns), unclamped."""

    def __init__(
        self,
        vae: Any,
        *,
        group: int | None = None,
        form: Form | None = None,
        compiled: bool = False,
    ) -> None:
        """`vae` is an `AutoencoderKLWan`, which stays as it is. `group`: latents a call; None: as
        many as `VALUES_AT_ONCE` allows. `form` of convolutions; None: sums of 2D ones for
        narrow layers on a CPU. `compiled`: norm and SiLU as one
        kernel, by torch.compile."""
        super().__init__()
        self.vae = vae
        self.group, self.form = group, form
        self.codec = codec_of(vae.config)
        self.causal, self.single_first = True, True
        self.reach: tuple[int, int] | None = None
        self.reach_space: int | None = None
        self._activate: Callable[[Tensor, Tensor, Tensor], object] = _norm_silu_into
        if compiled:
            self._activate = torch.compile(_norm_silu_into, dynamic=True)
        self._made: dict[str, tuple[tuple[Any, ...], tuple[Tensor, ...]]] = {}

    def new_cache(self) -> Cache:
        """Memory for one video that is decoded in chunks."""
        return Cache()

    @torch.no_grad()
    def forward(self, latents: Tensor, cache: Cache | None = None) -> Tensor:
        """Decode a whole video, or with `cache` its next latents."""
        if latents.ndim != 5 or latents.shape[1] != self.codec.channels or not latents.shape[2]:
            raise UserError(
                f"latents of shape {tuple(latents.shape)} do not fit this decoder",
                hint=f"expected (batch, {self.codec.channels}, latent frames, rows, columns)",
            )
        cache = self.new_cache() if cache is None else cache
        parts = latents.split(self.group or self._group(latents), dim=2)
        if len(parts) == 1:
            return self._pixels(self._walk(latents, cache)[-1])
        count, video, done = latents.shape[2] * self.codec.time, None, 0
        count -= self.codec.time - 1 if cache.latents == 0 else 0
        for part in parts:
            frames = self._pixels(self._walk(part, cache)[-1])
            if video is None:
                video = frames.new_empty(*frames.shape[:2], count, *frames.shape[3:])
            video[:, :, done : done + frames.shape[2]] = frames
            done += frames.shape[2]
        assert video is not None
        return video

    @torch.no_grad()
    def features(self, latents: Tensor, blocks: int = 3) -> list[Tensor]:
        """Outputs of the first decoder blocks (middle, then up blocks) for a whole video.

        Nothing after the last of them is computed.
        """
        cache = self.new_cache()
        group = self.group or self._group(latents)
        seen = [self._walk(part, cache, blocks) for part in latents.split(group, dim=2)]
        return [torch.cat(parts, dim=2) for parts in zip(*seen, strict=True)]

    def _walk(self, latents: Tensor, cache: Cache, blocks: int | None = None) -> list[Tensor]:
        """The blocks' outputs; without `blocks` only the last convolution's."""
        decoder, first = self.vae.decoder, cache.latents == 0
        units = [decoder.mid_block, *decoder.up_blocks][:blocks]
        z = self._plain(self.vae.post_quant_conv, latents.to(decoder.conv_in.weight.dtype))
        x = self._causal("in", decoder.conv_in, z, cache)
        seen = []
        for index, unit in enumerate(units):
            x = self._block(f"{index}", unit, x, cache, first)
            if blocks is not None:
                seen.append(x)
        cache.latents += latents.shape[2]
        if blocks is not None:
            return seen
        return [self._causal("out", decoder.conv_out, x, cache, norm=decoder.norm_out)]

    def _block(self, name: str, block: Any, x: Tensor, cache: Cache, first: bool) -> Tensor:
        entered = x
        attentions = getattr(block, "attentions", [])
        for index, unit in enumerate(block.resnets):
            if 0 < index <= len(attentions) and attentions[index - 1] is not None:
                x = attentions[index - 1](x)
            x = self._residual(f"{name}.{index}", unit, x, cache)
        upsampler = getattr(block, "upsampler", None)
        several = getattr(block, "upsamplers", None)
        upsampler = several[0] if several is not None else upsampler
        if upsampler is None:
            return x
        shortcut = getattr(block, "avg_shortcut", None)
        return self._upsample(
            name, upsampler, x, cache, first, None if shortcut is None else (shortcut, entered)
        )

    def _residual(self, name: str, unit: Any, x: Tensor, cache: Cache) -> Tensor:
        inner = self._causal(f"{name}.1", unit.conv1, x, cache, norm=unit.norm1)
        inner = self._causal(f"{name}.2", unit.conv2, inner, cache, norm=unit.norm2)
        same = isinstance(unit.conv_shortcut, nn.Identity)
        return inner.add_(x if same else self._plain(unit.conv_shortcut, x))

    def _causal(self, name: str, conv: Any, x: Tensor, cache: Cache, norm: Any = None) -> Tensor:
        """`conv` of `x`, or of SiLU(norm(x)), behind the frames that it saw last."""
        past, count = conv.kernel_size[0] - 1, x.shape[2]
        joined = torch.empty(
            (*x.shape[:2], past + count, *x.shape[3:]),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        before = cache.frames.get(name)
        joined[:, :, :past] = 0 if before is None else before
        if norm is None:
            joined[:, :, past:] = x
        else:
            self._activate(x, norm.gamma, joined[:, :, past:])
        cache.frames[name] = joined[:, :, count:].clone()
        side = conv.kernel_size[1] // 2
        if self._form_on(x) == "3d":
            weight = self._once(name, conv, _channels_last)[0]
            return functional.conv3d(joined, weight, conv.bias, padding=(0, side, side))
        weights = self._once(name, conv, _by_frame)
        return _sum_of_2d(joined, weights, conv.bias, side)

    def _plain(self, conv: Any, x: Tensor) -> Tensor:
        """A 1x1x1 convolution."""
        return functional.conv3d(x, conv.weight, conv.bias)

    def _upsample(
        self,
        name: str,
        unit: Any,
        x: Tensor,
        cache: Cache,
        first: bool,
        shortcut: tuple[Any, Tensor] | None,
    ) -> Tensor:
        """Twice the rows and columns, and twice the frames but for a video's first one."""
        doubles = unit.mode == "upsample3d"
        lead = 1 if first and doubles else 0
        batch, _, count, rows, columns = x.shape
        conv = unit.resample[1]
        frames = (count - lead) * (2 if doubles else 1) + lead
        out = torch.empty(
            (batch, conv.out_channels, frames, 2 * rows, 2 * columns),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )

        def spread(part: Tensor, turn: int, target: Tensor, entered: slice) -> None:
            weight, bias = self._once(f"{name}.up", conv, _four_phases)
            flat = part.transpose(1, 2).flatten(0, 1)
            fine = functional.conv2d(flat, weight, bias, padding=1)
            fine = fine.unflatten(0, (batch, -1)).transpose(1, 2).unflatten(1, (4, -1))
            for phase in range(4):
                row, column = divmod(phase, 2)
                piece = fine[:, phase, :, :, row : row + rows, column : column + columns]
                place = target[..., row::2, column::2]
                if shortcut is None:
                    place.copy_(piece)
                else:
                    more = _repeated(shortcut[0], shortcut[1][:, :, entered], turn, phase)
                    torch.add(piece, more, out=place)

        if not doubles:
            spread(x, 0, out, slice(None))
            return out
        if lead:
            spread(x[:, :, :1], 1, out[:, :, :1], slice(0, 1))
        if count > lead:
            halves = self._twice(f"{name}.time", unit.time_conv, x[:, :, lead:], cache)
            for turn, half in enumerate(halves):
                spread(half, turn, out[:, :, lead + turn :: 2], slice(lead, None))
        return out

    def _twice(self, name: str, conv: Any, x: Tensor, cache: Cache) -> list[Tensor]:
        """Even and odd frames out of the two halves of a (3, 1, 1) convolution's channels."""
        before = cache.frames.get(name)
        if before is None:
            before = torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2, -1, -1)
        joined = torch.cat([before, x], dim=2)
        cache.frames[name] = joined[:, :, -2:].clone()
        halves = []
        for turn in range(2):
            part = slice(turn * x.shape[1], (turn + 1) * x.shape[1])
            if self._form_on(x) == "3d":
                halves.append(functional.conv3d(joined, conv.weight[part], conv.bias[part]))
            else:
                weights = [weight[part] for weight in self._once(name, conv, _by_frame)]
                halves.append(_sum_of_2d(joined, weights, conv.bias[part], 0))
        return halves

    def _form_on(self, x: Tensor) -> Form:
        if self.form is not None:
            return self.form
        return "2d" if x.device.type == "cpu" and x.shape[1] < NARROW else "3d"

    def _group(self, latents: Tensor) -> int:
        """Latents a call, so that the largest activation stays below `VALUES_AT_ONCE`."""
        block = self.vae.decoder.up_blocks[-1]
        width = max(block.resnets[0].conv1.in_channels, block.resnets[-1].conv2.out_channels)
        side = self.codec.space // (self.vae.config.patch_size or 1)
        values = width * self.codec.time * latents[0, 0, 0].numel() * side**2
        budget = VALUES_AT_ONCE.get(latents.device.type, VALUES_AT_ONCE["cuda"])
        return max(1, budget // (values * latents.shape[0]))

    def _once(
        self, name: str, conv: Any, make: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Weights in another arrangement, made again when they change or move."""
        weight = conv.weight
        state = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        found = self._made.get(name)
        if found is None or found[0] != state:
            found = (state, make(weight, conv.bias))
            self._made[name] = found
        return found[1]

    def forget(self) -> None:
        """Drop the copies of weights in other arrangements."""
        self._made.clear()

    def _pixels(self, video: Tensor) -> Tensor:
        patch = self.vae.config.patch_size
        return unpatchify(video, patch) if patch else video


def speed_up(vae: Any, *, group: int | None = None) -> Any:
    """The same `AutoencoderKLWan`, whose `decode` from now on runs this module's way.

    Everything else stays as it is: encoding, saving, tiling (which diffusers does itself), offload
    of the whole VAE, and decoding with gradients. Where its layers are offloaded one by one,
    diffusers' own way is taken: only calling them brings their weights.
    """
    core, plain = WanCore(vae, group=group), vae._decode

    def _decode(self: Any, z: Tensor, return_dict: bool = True) -> Any:
        from diffusers.models.autoencoders.vae import DecoderOutput

        scale = self.spatial_compression_ratio
        tiled = self.use_tiling and (
            z.shape[-1] > self.tile_sample_min_width // scale
            or z.shape[-2] > self.tile_sample_min_height // scale
        )
        learns = torch.is_grad_enabled() and (
            z.requires_grad or any(weight.requires_grad for weight in self.decoder.parameters())
        )
        by_layers = any(hasattr(layer, "_hf_hook") for layer in self.decoder.modules())
        if tiled or learns or by_layers:
            return plain(z, return_dict=return_dict)
        video = core(z).clamp_(-1, 1)
        if hasattr(self, "_hf_hook"):
            core.forget()  # the weights leave the device, so their copies should
        return DecoderOutput(sample=video) if return_dict else (video,)

    vae._decode = MethodType(_decode, vae)
    return vae


# ---- arithmetic ----


def _norm_silu_into(x: Tensor, gamma: Tensor, out: Tensor) -> None:
    """out = SiLU(norm(x)): root mean square over channels, in float32 or better."""
    gain = gamma.flatten().to(x.dtype)
    normal = functional.rms_norm(x.movedim(1, -1), gain.shape, gain, eps=1e-24)
    torch.ops.aten.silu.out(normal.movedim(-1, 1), out=out)


def _sum_of_2d(
    joined: Tensor, weights: tuple[Tensor, ...] | list[Tensor], bias: Tensor, side: int
) -> Tensor:
    """A convolution over `len(weights)` frames as a sum of 2D ones."""
    frames = joined.shape[2] - len(weights) + 1
    total: Tensor | None = None
    for shift, weight in enumerate(weights):
        flat = joined[:, :, shift : shift + frames].transpose(1, 2).flatten(0, 1)
        term = functional.conv2d(flat, weight, None if shift else bias, padding=side)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total.unflatten(0, (joined.shape[0], frames)).transpose(1, 2)


def _repeated(shortcut: Any, x: Tensor, turn: int, phase: int) -> Tensor:
    """What Wan2.2's shortcut adds on the coarse grid: one of the places that it repeats `x` to."""
    place = turn * 4 + phase if shortcut.factor_t == 2 else phase
    outputs, inputs = shortcut.out_channels, x.shape[1]
    if inputs % outputs == 0:
        return x.unflatten(1, (outputs, inputs // outputs))[:, :, place // shortcut.repeats]
    source = (torch.arange(outputs) * shortcut.factor + place) // shortcut.repeats
    return x.index_select(1, source.to(x.device))


# ---- weights in other arrangements ----


def _channels_last(weight: Tensor, _bias: Tensor) -> tuple[Tensor, ...]:
    return (weight.contiguous(memory_format=torch.channels_last_3d),)


def _by_frame(weight: Tensor, _bias: Tensor) -> tuple[Tensor, ...]:
    layout = torch.channels_last
    return tuple(weight[:, :, shift].contiguous(memory_format=layout) for shift in range(3))


def _four_phases(weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """A 3x3 convolution of a picture upsampled by repetition, as 2x2 on the picture itself: one set
    of outputs for each of the four places. At rows 2i of the fine grid lie rows i - 1, i, i of the
    coarse one, at 2i + 1 rows i, i, i + 1."""
    wide = weight.double()

    def folded(kernel: Tensor, odd: int, axis: int) -> Tensor:
        one, two, three = kernel.unbind(axis)
        return torch.stack([one + two, three] if odd else [one, two + three], axis)

    phases = [folded(folded(wide, row, 2), column, 3) for row in (0, 1) for column in (0, 1)]
    made = torch.cat(phases).to(weight.dtype)
    return made.contiguous(memory_format=torch.channels_last), bias.repeat(4)
