"""`vae train --plan`: what a run would cost."""

import torch

from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.family import codec_of
from colibri.vae.bench import counted_flops
from colibri.vae.config import TrainConfig
from colibri.vae.light import LightDecoder, flops, light_config, parameter_count
from colibri.vae.load import read_config, teacher_folder
from colibri.vae.setup import TEACHER, read_start, with_teacher
from colibri.vae.taehv import PreviewDecoder


def plan(config: TrainConfig) -> str:
    """What a run would cost, in words."""
    config = with_teacher(config)
    assert config.teacher is not None
    table = read_config(teacher_folder(config.teacher))
    height, width = config.crop
    codec = codec_of(table)
    shape = LatentShape.of(VideoShape(frames=config.frames, height=height, width=width), codec)
    clips = config.batch * config.accumulate
    start = None if config.init in (None, TEACHER) else read_start(config)[0]
    size = config.size if start is None else config.init
    if config.kind == "2d":
        if start is None:
            with torch.device("meta"):
                start = PreviewDecoder.sized(config.size, codec, LatentStats.of(table))
        count = sum(parameter.numel() for parameter in start.parameters())
        forward = counted_flops(start, shape)
        form = "2d"
    else:
        light = (
            start.config
            if isinstance(start, LightDecoder)
            else light_config(config.size, table, causal=config.causal)
        )
        count, forward = parameter_count(light), flops(light, shape)
        form = "causal" if light.causal else "non-causal"
    work = 3 * forward * clips
    lines = [
        f"decoder     {size}, {form}, {count / 1e6:.2f} M parameters",
        f"clip        {config.frames} frames of {width}x{height}, latents {shape.frames}x"
        f"{shape.height}x{shape.width}",
        f"a step      {clips} clips a device, {work / 1e12:.2f} TFLOP in the decoder, "
        "forward and backward",
        f"weights     {count * 20 / 1e9:.2f} GB with gradients, AdamW and average, without heads",
        f"run         {config.steps:,} steps, {config.steps * clips:,} clips a device",
    ]
    return "\n".join(lines)
