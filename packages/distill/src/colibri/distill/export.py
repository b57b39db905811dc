"""The student as a pipeline folder: averaged weights, its schedule, and where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.schedule import FlowSchedule
from colibri.core.shards import write_json_whole, write_text_whole, write_whole
from colibri.core.wan.family import ModelFamily
from colibri.distill.page import read_log
from colibri.distill.parallel import whole
from colibri.distill.roles import merge
from colibri.distill.setup import Setup

FORMAT = "colibri-student/1"
ABOUT = "distill.json"

CURVE_ROWS = 12
"""Of the curve in the card."""


def save_student(setup: Setup, *, step: int) -> Path | None:
    """Write `OUT/student`, and `OUT/lora.safetensors` for adapters; None in following processes.

    The averaged weights are saved, in float32. Text encoder and VAE are the teacher's.
    """
    config = setup.config
    averaged: dict[str, Tensor] = {}
    for name, weight in setup.ema.weights.items():
        full = whole(weight)  # every process takes part
        if setup.world.leads:
            averaged[name] = full.cpu()
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
        "rows_with_frame": len(setup.encoded.with_frame),
        "step": step,
        "cfg_free": True,
        "schedule": setup.schedule.to_json(),
        "config": table,
    }
    write_json_whole(folder / ABOUT, provenance)
    write_text_whole(folder / "README.md", _card(setup, model.family, step))
    return folder


def _save_lora(path: Path, adapter: dict[str, Tensor]) -> None:
    """As diffusers' `load_lora_weights` reads it; alpha equals the rank, its default."""
    from safetensors.torch import save_file

    named = {f"transformer.{name}": weight.contiguous() for name, weight in adapter.items()}
    write_whole(path, lambda temporary: save_file(named, temporary, metadata={"format": "pt"}))


def _card(setup: Setup, family: ModelFamily, step: int) -> str:
    config, schedule = setup.config, setup.schedule
    sigmas = ", ".join(f"{sigma:.6g}" for sigma in schedule.sigmas[:-1])
    every = setup.objective.every
    which = "each" if every == 1 else f"one in {every}"
    images = setup.encoded.image_share(config.p_i2v)
    makes = "text-to-video, image-to-video" if images else "text-to-video"
    lines = [line for line in read_log(config.out / "log.jsonl") if line["step"] < step]
    return f"""---
library_name: diffusers
base_model: {setup.family.repo or setup.family.name}
tags: [{makes}, step-distillation]
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
{_rollout_row(setup)}| image to video | {_images(setup)} |
| clips | {config.size[1]}x{config.size[0]}, {config.frames} frames |
| data | {len(setup.encoded.rows):,} rows, {setup.encoded.manifest.data_hash[:16]} |

{_in_diffusers(family, schedule, images=images > 0)}{_curve(lines)}"""


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


def _images(setup: Setup) -> str:
    asked, with_frame = setup.config.p_i2v, len(setup.encoded.with_frame)
    if asked == 0 or with_frame == len(setup.encoded.rows):
        return f"{asked:.0%} of samples"
    return (
        f"{100 * setup.encoded.image_share(asked):.3g}% of samples: {asked:.0%} of those of the "
        f"{with_frame:,} rows with a frame"
    )


def _in_diffusers(family: ModelFamily, schedule: FlowSchedule, *, images: bool) -> str:
    """What who has diffusers alone can run; it samples as `infer` does."""
    heading = "## In diffusers\n\n"
    if family.causal is not None:
        return (
            f"{heading}Its pipelines make a clip whole, which this model was not trained for. "
            "`infer long --model FOLDER` makes\nit in blocks.\n"
        )
    default = family.defaults
    imports = "import torch\nfrom diffusers import WanPipeline\n"
    scheduler = ""
    if not schedule.euler_grid().exact:
        imports = (
            "from functools import partial\n\n"
            "import torch\nfrom diffusers import FlowMatchLCMScheduler, WanPipeline\n"
        )
        scheduler = (
            "scheduler = pipeline.scheduler = FlowMatchLCMScheduler()\n"
            "scheduler.set_timesteps = partial(\n"
            f"    scheduler.set_timesteps, sigmas={list(schedule.sigmas[:-1])}\n)\n"
        )
    image = "`WanImageToVideoPipeline` takes an `image` as well.\n" if images else ""
    return f"""{heading}```python
{imports}
pipeline = WanPipeline.from_pretrained(".", torch_dtype=torch.float32)
{scheduler}torch.manual_seed(0)
video = pipeline(
    "a prompt",
    num_inference_steps={schedule.steps},
    guidance_scale=1.0,
    height={default.height},
    width={default.width},
    num_frames={default.frames},
    max_sequence_length={default.text_tokens},
).frames[0]
```

Said nothing, the pipeline takes 50 steps with guidance. The noise between steps is of torch's
global seed: its `generator` does not reach it.
{image}"""


def _curve(lines: Sequence[Mapping[str, Any]]) -> str:
    """Figures of the last step and some before: of validations, else of losses."""
    names = {name for line in lines for name in line}
    columns = sorted(name for name in names if name.startswith("validate/"))
    said = "Validations against the teacher's clips; `score` goes by the worst figure, 1 is best."
    if not columns:
        # the value of loss/dmd says nothing, as its gradient is normalised
        losses = {name for name in names if name.startswith("loss/")} - {"loss/dmd"}
        columns = sorted(losses | names & {"dmd/gradient_raw"})
        said = "Figures of `log.jsonl`."
    shown = [line for line in lines if line.keys() >= set(columns)]
    if not columns or not shown:
        return ""
    count = min(CURVE_ROWS, len(shown))
    places = [(index + 1) * len(shown) // count - 1 for index in range(count)]
    table = [
        ["step", *(name.removeprefix("validate/") for name in columns)],
        ["---:"] * (len(columns) + 1),
        *(
            [str(line["step"] + 1), *(_figure(line[name]) for name in columns)]
            for line in (shown[place] for place in places)
        ),
    ]
    rows = "".join(f"| {' | '.join(row)} |\n" for row in table)
    return f"\n## Curve\n\n{said}\n\n{rows}"


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
