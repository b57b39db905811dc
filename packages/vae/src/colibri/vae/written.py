"""What a training writes: checkpoints, its log, the decoder's folder."""

import copy
import json
import shutil
from collections.abc import Sequence
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
    write_text_whole(part / "README.md", _card(decoder, teacher, training))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return hash_file(folder / WEIGHTS)


def _card(
    decoder: LightDecoder | PreviewDecoder, teacher: dict[str, str], training: dict[str, Any]
) -> str:
    codec = decoder.codec
    widths: Sequence[int]
    if isinstance(decoder, PreviewDecoder):
        form, widths = "2D, with a memory of the latent before (TAEHV's form)", decoder.widths
    else:
        sees = "causal" if decoder.config.causal else "not causal: latents see later ones"
        form = f"depthwise-separable 3D, the last two stages full 3D, no attention; {sees}"
        widths = decoder.config.widths
    rows = {
        "form": form,
        "widths": ", ".join(map(str, widths)),
        "latents": f"{codec.channels} channels, {codec.time} frames by {codec.space}x"
        f"{codec.space} pixels each",
        "parameters": f"{sum(weight.numel() for weight in decoder.parameters()):,}",
        "teacher's SHA-256": teacher["hash"],
        **{key: str(value) for key, value in training.items()},
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
base_model: {teacher["id"]}
tags: [video-vae, light-decoder]
---
# A light decoder for {teacher["id"]}

Takes the latents of that VAE and no other's, un-normalised:
`colibri.vae.load_decoder(FOLDER).decode(latents)`, `infer t2v --decoder FOLDER`.

| | |
|---|---|
{lines}
"""


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
