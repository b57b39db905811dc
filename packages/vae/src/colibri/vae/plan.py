"""`vae train --plan`: what a run would cost."""

import json

import torch

from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.family import codec_of
from colibri.vae.bench import counted_flops
from colibri.vae.config import TrainConfig
from colibri.vae.light import flops, light_config, parameter_count
from colibri.vae.load import teacher_folder
from colibri.vae.setup import with_teacher
from colibri.vae.taehv import PreviewDecoder


def plan(config: TrainConfig) -> str:
    """What a run would cost, in words."""
    config = with_teacher(config)
    assert config.teacher is not None
    table = json.loads((teacher_folder(config.teacher) / "config.json").read_text("utf-8"))
    height, width = config.crop
    codec = codec_of(table)
    shape = LatentShape.of(VideoShape(frames=config.frames, height=height, width=width), codec)
    clips = config.batch * config.accumulate
    if config.kind == "2d":
        with torch.device("meta"):
            preview = PreviewDecoder.sized(config.size, codec, LatentStats.of(table))
        count = sum(parameter.numel() for parameter in preview.parameters())
        forward = counted_flops(preview, shape)
        form = "2d"
    else:
        light = light_config(config.size, table, causal=config.causal)
        count, forward = parameter_count(light), flops(light, shape)
        form = "causal" if light.causal else "non-causal"
    work = 3 * forward * clips
    lines = [
        f"decoder     {config.size}, {form}, {count / 1e6:.2f} M parameters",
        f"clip        {config.frames} frames of {width}x{height}, latents {shape.frames}x"
        f"{shape.height}x{shape.width}",
        f"a step      {clips} clips a device, {work / 1e12:.2f} TFLOP in the decoder, "
        "forward and backward",
        f"weights     {count * 20 / 1e9:.2f} GB with gradients, AdamW and average, without heads",
        f"run         {config.steps:,} steps, {config.steps * clips:,} clips a device",
    ]
    return "\n".join(lines)
