"""`vae info` and `vae export`: what a decoder folder is, and one made from a checkpoint."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.family import codec_of
from colibri.vae.decode import VideoDecoder
from colibri.vae.light import LightConfig, LightDecoder, flops_by_stage, light_config
from colibri.vae.load import load_decoder, load_teacher, teacher_folder
from colibri.vae.setup import TEACHER
from colibri.vae.taehv import PreviewDecoder
from colibri.vae.written import checkpoints, write_decoder


def describe(folder: Path, *, frames: int, size: tuple[int, int]) -> dict[str, Any]:
    """Kind, codec, reach, parameters, teacher; for light decoders the cost of a video as well."""
    decoder = load_decoder(folder)
    core = decoder.core
    assert isinstance(core, torch.nn.Module)
    facts: dict[str, Any] = {
        "kind": type(core).__name__,
        "codec": asdict(decoder.codec),
        "causal": decoder.causal,
        "reach_latents": decoder.reach,
        "parameters": sum(parameter.numel() for parameter in core.parameters()),
        "teacher": decoder.teacher,
    }
    if isinstance(core, LightDecoder):
        facts |= {"light": asdict(core.config)} | _cost(decoder, core.config, frames, size)
    return facts


def sizes(teacher: dict[str, Any], *, frames: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Every named size for a teacher's config: parameters, reach, cost of a video."""
    from colibri.vae.light import SIZES, parameter_count, reach

    rows = []
    for name in SIZES:
        for causal in (True, False):
            config = light_config(name, teacher, causal=causal)
            shape = _shape(config, frames, size)
            rows.append(
                {
                    "size": name,
                    "causal": causal,
                    "parameters": parameter_count(config),
                    "reach_latents": reach(config),
                    "tflop": round(sum(flops_by_stage(config, shape)) / 1e12, 6),
                }
            )
    return rows


def export(
    run: Path,
    folder: Path,
    *,
    teacher: str,
    step: int | None = None,
    averaged: bool = True,
    dtype: torch.dtype = torch.float32,
) -> str:
    """A decoder folder from a training run's checkpoint; SHA-256 of its weights.

    UserError where there is no such checkpoint, or the teacher is another one than the run's.
    """
    found = {int(path.stem.removeprefix("step-")): path for path in checkpoints(run)}
    if not found:
        raise UserError(f"{run} holds no checkpoints", hint="give the output folder of vae train")
    if step is None:
        step = max(found)
    if step not in found:
        raise UserError(
            f"{run} has no checkpoint of step {step}", hint=f"there are {sorted(found)}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty", hint="choose another folder")
    from colibri.core.wan.decoder import hash_vae_folder
    from colibri.vae.adapter import check_teacher

    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    vae_hash = hash_vae_folder(teacher_folder(teacher))
    check_teacher({"hash": settings["teacher_hash"]}, vae_hash, f"--teacher {teacher}")
    vae = load_teacher(teacher)
    init = settings["init"]
    decoder: LightDecoder | PreviewDecoder
    if init is not None and Path(init) != TEACHER:
        core = load_decoder(init).core
        assert isinstance(core, LightDecoder | PreviewDecoder)
        decoder = core
    elif settings["kind"] == "2d":
        stats = LatentStats.of(vae.config)
        decoder = PreviewDecoder.sized(settings["size"], codec_of(vae.config), stats)
    else:
        table = dict(vae.config)
        decoder = LightDecoder(light_config(settings["size"], table, causal=settings["causal"]))
    state = torch.load(found[step], map_location="cpu", weights_only=True)
    weights = state["ema"]
    if not averaged:
        weights = {
            name.removeprefix("decoder."): value
            for name, value in state["student"].items()
            if name.startswith("decoder.")
        }
    return write_decoder(
        folder,
        decoder,
        weights,
        stats=LatentStats.of(vae.config),
        teacher={"id": teacher, "revision": "", "hash": vae_hash},
        training={"step": step, "seed": settings["seed"], "averaged": averaged},
        dtype=dtype,
    )


def _cost(
    decoder: VideoDecoder, config: LightConfig, frames: int, size: tuple[int, int]
) -> dict[str, Any]:
    counts = flops_by_stage(config, _shape(config, frames, size))
    names = ["input", *(f"stage {index}" for index in range(len(config.widths))), "output"]
    return {
        "video": {"frames": frames, "height": size[0], "width": size[1]},
        "tflop": round(sum(counts) / 1e12, 6),
        "tflop_by_stage": {
            name: round(count / 1e12, 6) for name, count in zip(names, counts, strict=True)
        },
    }


def _shape(config: LightConfig, frames: int, size: tuple[int, int]) -> LatentShape:
    return LatentShape.of(VideoShape(frames=frames, height=size[0], width=size[1]), config.codec)
