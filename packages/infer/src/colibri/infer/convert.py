"""`infer convert`: weights as others publish them into a model folder that everything here loads.

A folder or file in Wan's original layout, a GGUF file of its transformer, a checkpoint of a
training run (`generator_ema` and its like, read as plain tensors), a diffusers folder, or a LoRA
file. What a source lacks comes from
`--base`; how a student is sampled from `--form` or from flags.
"""

import itertools
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.core.schedule import FlowSchedule
from colibri.core.wan import original
from colibri.core.wan.family import Causal
from colibri.infer import models, quantized, tuning
from colibri.infer.config import ConvertConfig
from colibri.infer.decode import Say
from colibri.infer.outputs import check_writable
from colibri.infer.recipe import LoraUse

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a released student is sampled: steps before the shift, and its blocks."""

    timesteps: tuple[float, ...]
    shift: float
    causal: Causal | None = None


FORMS = {
    # infer/run_t2v.sh of AMD-AGI/HummingbirdXT
    "hummingbird-xt": Form(timesteps=(1000, 750, 500), shift=10),
    # The list of FastVideo's DMD recipes is not shifted.
    "fastwan": Form(timesteps=(1000, 757, 522), shift=1),
    # configs/self_forcing_dmd.yaml of Self-Forcing
    "self-forcing": Form(
        timesteps=(1000, 750, 500, 250), shift=5, causal=Causal(first_block=3, block=3)
    ),
    # LongLive's window of 12 frames has 3 of the sink in it.
    "longlive": Form(
        timesteps=(1000, 750, 500, 250),
        shift=5,
        causal=Causal(first_block=3, block=3, sink=3, window=9),
    ),
}
"""By `--form`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was made."""

    folder: Path
    family: str
    parts: dict[str, str]
    """Where each part came from."""
    tensors: int
    """Of the transformer, each compared with the source after writing."""
    schedule: FlowSchedule | None


def convert(source: Path, config: ConvertConfig, *, say: Say = log.info) -> Converted:
    """Write the model folder `config.out`, whole or not at all, and compare it with the source.

    UserError in one sentence for a source that is missing, damaged, of another model, or holds
    code, for a part that nothing brings, and for an `--out` that is another thing's.
    """
    if config.out is None:
        raise UserError("--out is missing", hint="infer convert SOURCE --out FOLDER")
    _check_out(config.out)
    check_writable(config.out.parent)
    if not source.exists() and (config.base or str(source).count("/") != 1):
        raise UserError(f"there is no {source}", hint="give a file, a folder or a hub id")
    base = models.find_model(config.base, say=say) if config.base else None
    if base is not None and quantized.scheme_of(base.folder):
        raise UserError(f"--base {config.base} is quantised", hint="give its source")
    if source.is_file() and _is_lora(source):
        model, parts = _with_lora(source, config, base)
    elif source.is_file() and base is not None:
        model, parts = _student(source, config, base)
    else:
        if base is not None:
            raise UserError("--base is for one file", hint=f"{source} is a whole model")
        folder = wan.find_folder(source, say=say)
        model = wan.load(folder, dtype=config.dtype, vae_dtype=config.vae_dtype)
        parts = dict.fromkeys(wan.PARTS, str(source))
    model = _with_form(model, config)
    for part in wan.PARTS:
        say(f"{part.replace('_', ' '):<14}from {parts[part]}")
    # Parts of a base are read too: it may be of Wan's own layout, or in another precision.
    wan.save(model, config.out)
    tensors = _check_written(model, config.out)
    return Converted(
        folder=config.out,
        family=model.family.name,
        parts=parts,
        tensors=tensors,
        schedule=model.schedule,
    )


def text(made: Converted) -> str:
    """For people."""
    lines = [f"{made.folder}: {made.family}; {made.tensors} tensors compared with the source."]
    if made.schedule is None:
        lines.append("It is sampled as its family; --form or --timesteps tell a student's steps.")
    else:
        levels = ", ".join(f"{sigma:.4g}" for sigma in made.schedule.sigmas)
        lines.append(f"A student of {made.schedule.steps} steps, sigmas {levels}.")
    return "\n".join(lines)


# ---- kinds of source ----


def _student(
    file: Path, config: ConvertConfig, base: models.Source
) -> tuple[wan.WanModel, dict[str, str]]:
    """One file of some part, everything else from the base."""
    found = original.find(file)
    (part,) = (part for part, files in found.files.items() if file in files)
    kind = config.vae_dtype if part == "vae" else config.dtype
    network = original.load_part(found, base.family, part, kind).eval()
    rest = tuple(one for one in wan.PARTS if one != part)
    model = wan.load(base.folder, parts=rest, dtype=config.dtype, vae_dtype=config.vae_dtype)
    setattr(model, part, network)
    model = replace(model, folder=None, schedule=None if part == "transformer" else base.schedule)
    return model, dict.fromkeys(rest, base.asked) | {part: str(file)}


def _with_lora(
    file: Path, config: ConvertConfig, base: models.Source | None
) -> tuple[wan.WanModel, dict[str, str]]:
    if base is None:
        raise UserError(
            f"{file} is a LoRA file", hint="give its model as --base, or render with --lora"
        )
    (lora,) = tuning.read_loras((f"{file}:{config.scale}",))
    model = wan.load(base.folder, dtype=config.dtype, vae_dtype=config.vae_dtype)
    merge(model.transformer, lora)
    model = replace(model, folder=None)
    parts = dict.fromkeys(wan.PARTS, base.asked)
    return model, parts | {"transformer": f"{base.asked}, {file} merged at {config.scale:g}"}


def merge(transformer: Any, lora: LoraUse) -> None:
    """Add a LoRA's products to the weights that they belong to, in the weights' own dtype."""
    tuning.add_loras(transformer, (lora,))
    transformer.fuse_lora(adapter_names=list(transformer.peft_config))
    transformer.unload_lora()


def _is_lora(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return False
    names = check_safetensors(file)
    marks = (".lora_a.", ".lora_b.", ".lora_down.", ".lora_up.", "lora.down.", "lora.up.")
    return any(mark in name.lower() for name in names for mark in marks)


def _with_form(model: wan.WanModel, config: ConvertConfig) -> wan.WanModel:
    form = _form(config)
    if form is None:
        return model
    schedule = FlowSchedule.listed(form.timesteps, shift=form.shift)
    defaults = replace(
        model.family.defaults,
        sampler="consistency",
        steps=schedule.steps,
        guidance=1.0,
        shift=form.shift,
    )
    # --timesteps say nothing of blocks, a released form says that it has none
    causal = model.family.causal if config.form is None else form.causal
    family = replace(model.family, defaults=defaults, causal=causal)
    return replace(model, family=family, schedule=schedule)


def _form(config: ConvertConfig) -> Form | None:
    if config.form is not None:
        if config.timesteps or config.shift is not None:
            raise UserError("--form says the steps", hint="give it, or --timesteps and --shift")
        return FORMS[config.form]
    if not config.timesteps:
        if config.shift is not None:
            raise UserError("--shift is of --timesteps", hint="give both")
        return None
    try:
        timesteps = tuple(float(one) for one in config.timesteps)
        ordered = timesteps[0] <= 1000 and all(
            a > b > 0 for a, b in itertools.pairwise((*timesteps, 1e-9))
        )
    except ValueError:
        ordered = False
    if not ordered:
        raise UserError(
            f"--timesteps {','.join(config.timesteps)} do not fall from 1000 towards 0",
            hint="such as 1000,750,500",
        )
    return Form(timesteps=timesteps, shift=1.0 if config.shift is None else config.shift)


# ---- what is written ----


def _check_out(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / wan.ABOUT).is_file()):
        raise UserError(f"--out {out} is there and is no model folder", hint="choose another --out")


def _check_written(model: wan.WanModel, folder: Path) -> int:
    """Compare every tensor of the transformer on disk with the one in memory, bit for bit."""
    import torch
    from safetensors import safe_open

    own = model.transformer.state_dict()
    left = dict(own)
    for path in sorted((folder / "transformer").glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a handle, not a dict)
                expected = left.pop(name)
                if not torch.equal(tensors.get_tensor(name), expected):
                    raise UserError(f"{path} was written wrongly: {name}", hint="check the disk")
    if left:
        raise UserError(f"{folder} lacks {min(left)}", hint="check the disk")
    return len(own)
