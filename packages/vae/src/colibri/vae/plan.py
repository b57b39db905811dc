"""`vae train --plan`: what a run would cost, and take."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.dryrun import kept_bytes
from colibri.core.wan.family import codec_of
from colibri.vae import forms
from colibri.vae.bench import counted_flops
from colibri.vae.config import TrainConfig
from colibri.vae.light import LightConfig, LightDecoder, light_config
from colibri.vae.load import read_config, teacher_folder
from colibri.vae.losses import BLOCKS
from colibri.vae.setup import TEACHER, read_start, with_teacher
from colibri.vae.taehv import PreviewDecoder
from colibri.vae.wan import WanCore

TRIAL = 8
"""Latent rows and columns of what is timed."""


def plan(config: TrainConfig) -> str:
    """What a run would cost, in words; a small piece of it is timed on the device it would use."""
    config = with_teacher(config)
    assert config.teacher is not None
    table = read_config(teacher_folder(config.teacher, weights=False))
    height, width = config.crop
    codec = codec_of(table)
    shape = LatentShape.of(VideoShape(frames=config.frames, height=height, width=width), codec)
    clips = config.batch * config.accumulate
    core, size, form = _decoder(config, table)
    count = sum(parameter.numel() for parameter in core.parameters())
    with torch.device("meta"):
        teacher = _teacher(table)
    frozen = sum(parameter.numel() for parameter in teacher.parameters())
    decoder, seen = counted_flops(core, shape), _teachers_work(config, teacher, shape)
    work = clips * (3 * decoder + seen)
    saved = config.batch * _saved_bytes(core, shape)
    rate = _rate(core, shape.channels, config)
    if config.precision == "bf16":
        saved //= 2
    lines = [
        f"decoder     {size}, {form}, {count / 1e6:.2f} M parameters",
        f"clip        {config.frames} frames of {width}x{height}, latents {shape.frames}x"
        f"{shape.height}x{shape.width}",
        f"a step      {clips} clips a device, {3 * clips * decoder / 1e12:.3g} TFLOP forward and "
        f"backward in the decoder, {clips * seen / 1e12:.3g} in the teacher",
        f"memory      about {_gb(20 * count + 4 * frozen + saved)}: "
        f"{_gb(20 * count)} of weights with gradients, AdamW and average, {_gb(4 * frozen)} of "
        f"teacher, {_gb(saved)} of activations",
        f"time        about {_span(work / rate)} a step, {_span(config.steps * work / rate)} in "
        f"all, at the {rate / 1e12:.3g} TFLOP/s of a small piece timed here",
        f"run         {config.steps:,} steps, {config.steps * clips:,} clips a device",
    ]
    return "\n".join(lines)


def _decoder(config: TrainConfig, table: dict[str, Any]) -> tuple[nn.Module, object, str]:
    """What would be trained, without weights where it is new; its size and form, in words."""
    start = None if config.init in (None, TEACHER) else read_start(config)[0]
    size = config.size if start is None else config.init
    with torch.device("meta"):
        if config.kind == "2d":
            stats = LatentStats.of(table)
            return start or PreviewDecoder.sized(config.size, codec_of(table), stats), size, "2d"
        light: LightConfig = (
            start.config
            if isinstance(start, LightDecoder)
            else light_config(config.size, table, causal=config.causal)
        )
        return LightDecoder(light), size, "causal" if light.causal else "non-causal"


def _teacher(table: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_config(table)


def _teachers_work(config: TrainConfig, vae: Any, shape: LatentShape) -> int:
    """Operations for one clip in the frozen teacher, of what the settings ask of it."""
    work = 0
    if config.losses.teacher_output:
        work += counted_flops(WanCore(vae), shape)
    elif config.losses.features and config.kind == "light":
        work += counted_flops(
            WanCore(vae), shape, lambda core, latents: core.features(latents, BLOCKS)
        )
    if config.latents is None:
        height, width = config.crop

        def encode(ghost: Any, latents: Tensor) -> object:
            return ghost.encode(latents.new_empty(1, 3, config.frames, height, width))

        work += counted_flops(vae, shape, encode)
    return work


def _saved_bytes(core: nn.Module, shape: LatentShape) -> int:
    """What one clip's forward keeps for its backward, in float32."""
    ghost = core.to("meta").requires_grad_(True)
    size = (1, shape.channels, shape.frames, shape.height, shape.width)
    return kept_bytes(lambda: ghost(torch.empty(size, device="meta")), ghost.parameters())


def _rate(core: nn.Module, channels: int, config: TrainConfig) -> float:
    """Operations a second of a small forward and backward, once warm."""
    at_hand = torch.cuda.is_available() and config.device != "cpu"
    device = torch.device("cuda" if at_hand else "cpu")
    real = core.to_empty(device=device).requires_grad_(True)
    for parameter in real.parameters():
        nn.init.normal_(parameter, std=0.02)
    if isinstance(real, LightDecoder):
        forms.apply(real, forms.usual(real, device.type))
    shape = LatentShape(channels=channels, frames=2, height=TRIAL, width=TRIAL)
    size = (1, shape.channels, shape.frames, shape.height, shape.width)
    latents, took = torch.randn(size, device=device), 0.0
    if config.threads:
        torch.set_num_threads(config.threads)
    half = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    for _ in range(3):
        begin = time.perf_counter()
        with half:
            video = real(latents)
        video.float().square().mean().backward()
        if at_hand:
            torch.cuda.synchronize()
        took = time.perf_counter() - begin
    return 3 * counted_flops(real, shape) / took


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days"
