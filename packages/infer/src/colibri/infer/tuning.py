"""What changes how a transformer computes: LoRA files and attention backends, through diffusers."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.infer import device_profile
from colibri.infer.hashes import hash_kept
from colibri.infer.models import Machine
from colibri.infer.recipe import LoraUse


def read_loras(flags: Sequence[str]) -> tuple[LoraUse, ...]:
    """`PATH` or `PATH:SCALE` -> files with their hashes. UserError for a missing or cut file."""
    loras = []
    for flag in flags:
        path, scale = Path(flag), 1.0
        head, colon, tail = flag.rpartition(":")
        if colon and not path.exists():
            try:
                path, scale = Path(head), float(tail)
            except ValueError:
                raise UserError(
                    f"--lora {flag}: {tail!r} is not a scale", hint="write PATH:0.8"
                ) from None
        if path.suffix != ".safetensors":
            raise UserError(f"--lora {path} is not a .safetensors file")
        check_safetensors(path)
        loras.append(LoraUse(path=str(path), scale=scale, sha256=hash_kept(path)))
    return tuple(loras)


def add_loras(transformer: Any, loras: Sequence[LoraUse]) -> None:
    """Put LoRA files on a transformer: diffusers' own form, Wan's original names, or Musubi's.

    UserError where a file is for another model: none of its weights has a place, or another shape.
    """
    if not loras:
        return
    from diffusers import WanPipeline

    names = [f"lora{index}" for index in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        path = Path(lora.path)
        if not path.is_file():
            raise UserError(f"there is no LoRA file {path}")
        if hash_kept(path) != lora.sha256:
            raise UserError(f"{path} is not the LoRA file that the recipe names")
        try:
            weights = WanPipeline.lora_state_dict(str(path.parent), weight_name=path.name)
            WanPipeline.load_lora_into_transformer(weights, transformer, adapter_name=name)
        except (RuntimeError, ValueError, KeyError, IndexError, OSError) as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(f"{path} does not fit this model: {said}") from None
        if name not in getattr(transformer, "peft_config", {}):
            raise UserError(f"{path} holds no LoRA weights for this model")
    transformer.set_adapters(names, [lora.scale for lora in loras])


def choose_attention(asked: str | None, machine: Machine) -> str | None:
    """The backend to use: what was asked, else what `infer doctor` found fastest here, else flash
    where it is installed, else None."""
    if asked is not None:
        return asked.lower()
    if profile := device_profile.find(machine.device):
        best = profile.chosen.attention
        measured = {one.dtype for one in profile.trials if one.kind == "attention"}
        return best if best != "native" and machine.dtype in measured else None
    half = machine.dtype in ("bfloat16", "float16")
    if machine.device.startswith("cuda") and half and importlib.util.find_spec("flash_attn"):
        return "flash"
    return None


def set_attention(transformer: Any, backend: str | None) -> None:
    """Choose diffusers' attention backend, for this model alone.

    UserError for an unknown one or one not installed.
    """
    if backend is None:
        return
    from diffusers.models.attention_dispatch import (
        _AttentionBackendRegistry as Registry,  # the only door to the process's default
    )

    default, _ = Registry.get_active_backend()
    log = logging.getLogger("diffusers.models.modeling_utils")
    before = log.level
    log.setLevel(logging.ERROR)  # it says at each call that the interface may change
    try:
        transformer.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:400]
        missing = backend.endswith("_hub") and importlib.util.find_spec("kernels") is None
        raise UserError(
            f"--attention {backend} cannot be used: {said.rstrip('.')}",
            hint="pip install 'colibri-infer[flash]'" if missing else None,
        ) from None
    finally:
        log.setLevel(before)
        Registry.set_active_backend(default)  # diffusers changes it for models made later too
