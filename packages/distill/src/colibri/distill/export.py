"""The student as a pipeline folder: averaged weights, its schedule, and where it came from."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.shards import write_json_whole, write_text_whole, write_whole
from colibri.distill.parallel import whole
from colibri.distill.roles import merge
from colibri.distill.setup import Setup

FORMAT = "colibri-student/1"
ABOUT = "distill.json"


def save_student(setup: Setup, *, step: int) -> Path | None:
    """Write `OUT/student`, and `OUT/lora.safetensors` for adapters; None in following processes.

    The averaged weights are saved, in float32. Text encoder and VAE are the teacher's.
    """
    config = setup.config
    averaged = {name: whole(weight).cpu() for name, weight in setup.ema.weights.items()}
    if not setup.world.leads:
        return None
    model = wan.load(setup.teacher, parts=("transformer",))
    if config.mode == "lora":
        merge(model.transformer, averaged, rank=config.student.rank)
        _save_lora(config.out / "lora.safetensors", averaged)
    else:
        with torch.no_grad():
            for name, weight in model.transformer.named_parameters():
                weight.copy_(averaged[name])
    model.schedule = setup.schedule
    height, width = config.size
    model.family = replace(
        setup.family,
        causal=config.causal_form,
        defaults=replace(
            setup.family.defaults,
            sampler="consistency",
            steps=setup.schedule.steps,
            guidance=1.0,
            shift=setup.schedule.shift,
            frames=config.frames,
            height=height,
            width=width,
        ),
    )
    folder = config.out / "student"
    wan.hush()
    wan.save(model, folder)
    table = to_table(config)
    for key in ("out", "encoded", "device", "plan", "start"):
        table.pop(key)
    table["pairs"].pop("folder")
    provenance = {
        "format": FORMAT,
        "teacher": setup.family.repo or setup.family.name,
        "teacher_transformer": setup.teacher_hash,
        "vae_hash": setup.vae_hash,
        "data_hash": setup.encoded.manifest.data_hash,
        "rows": len(setup.encoded.rows),
        "step": step,
        "cfg_free": True,
        "schedule": setup.schedule.to_json(),
        "config": table,
    }
    write_json_whole(folder / ABOUT, provenance)
    write_text_whole(folder / "README.md", _card(setup, step))
    return folder


def _save_lora(path: Path, adapter: dict[str, Tensor]) -> None:
    """As diffusers' `load_lora_weights` reads it; alpha equals the rank, its default."""
    from safetensors.torch import save_file

    named = {f"transformer.{name}": weight.contiguous() for name, weight in adapter.items()}
    write_whole(path, lambda temporary: save_file(named, temporary, metadata={"format": "pt"}))


def _card(setup: Setup, step: int) -> str:
    config, schedule = setup.config, setup.schedule
    sigmas = ", ".join(f"{sigma:.6g}" for sigma in schedule.sigmas[:-1])
    every = setup.objective.every
    which = "each" if every == 1 else f"one in {every}"
    return f"""---
library_name: diffusers
base_model: {setup.family.repo or setup.family.name}
tags: [text-to-video, image-to-video, step-distillation]
---
# A {schedule.steps}-step student of {setup.family.name}

Runs without classifier-free guidance in {schedule.steps} steps at sigmas {sigmas} (consistency
sampler: noise-free estimate, fresh noise, next level). The schedule is in `colibri.json`, how it
was made in `{ABOUT}`.

| | |
|---|---|
| losses | {", ".join(config.terms)} |
| guidance of the teacher | {config.guidance.form} {config.guidance.real:g} |
| form | {config.mode}, average of weights {config.student.ema:g} |
| steps | {step}; {which} updates the student |
| samples an update | {config.batch * config.accumulate * setup.world.groups} |
{_rollout_row(setup)}| image to video | {config.p_i2v:.0%} of samples |
| clips | {config.size[1]}x{config.size[0]}, {config.frames} frames |
| data | {len(setup.encoded.rows):,} rows, {setup.encoded.manifest.data_hash[:16]} |
"""


def _rollout_row(setup: Setup) -> str:
    causal = setup.config.causal_form
    if causal is None:
        return ""
    window = "all frames" if causal.window is None else f"the latest {causal.window} latent frames"
    past = "" if causal.past == "clean" else ", as they went into their last step"
    return (
        f"| made | in blocks of {causal.first_block}, then {causal.block} latent frames that see "
        f"{window} and a sink of {causal.sink}{past} |\n"
    )
