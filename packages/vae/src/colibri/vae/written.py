"""What a training writes: checkpoints, its log, the decoder's folder."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core.hashing import hash_file
from colibri.core.shards import write_text_whole, write_whole
from colibri.core.wan.decoder import LatentStats
from colibri.vae.adapter import LightVAE
from colibri.vae.light import LightDecoder
from colibri.vae.load import WEIGHTS
from colibri.vae.taehv import PreviewDecoder, save

KEEP = 2
"""Checkpoints that stay on disk."""


def write_decoder(
    folder: Path,
    decoder: LightDecoder | PreviewDecoder,
    weights: dict[str, Tensor],
    *,
    stats: LatentStats,
    teacher: dict[str, str],
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> str:
    """A folder of a decoder in the form of `decoder`, whole or not at all; SHA-256 of its weights
    file."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(decoder, PreviewDecoder):
        part.mkdir(parents=True)
        preview = copy.deepcopy(decoder)
        preview.load_state_dict(weights)
        save(part, preview.to(dtype), teacher=teacher, training=training)
    else:
        vae = LightVAE.of(decoder.config, stats, teacher=teacher, training=training)
        vae.decoder.load_state_dict(weights)
        vae.decoder.to(dtype)
        vae.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return hash_file(folder / WEIGHTS)


def checkpoints(out: Path) -> list[Path]:
    """Oldest first."""
    return sorted((out / "checkpoints").glob("step-*.pt"))


def save_checkpoint(out: Path, state: dict[str, Any]) -> None:
    """Write `state`, whole or not at all, under its step; the newest `KEEP` stay."""
    path = out / "checkpoints" / f"step-{state['step']:08d}.pt"
    write_whole(path, lambda temporary: torch.save(state, temporary))
    for old in checkpoints(out)[:-KEEP]:
        old.unlink()


def cut_log(path: Path, step: int) -> None:
    """Forget what was noted after the checkpoint: those steps run again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line and json.loads(line)["step"] <= step]
        write_text_whole(path, "".join(f"{line}\n" for line in kept))
