"""Latent files: one safetensors format for encoded clips, render checkpoints and ODE pairs.

Latents are DiT-space (normalised). A file says which codec and which VAE they belong to, so that a
changed VAE refuses its stale children. Needs torch only when it is called.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.shards import write_whole

if TYPE_CHECKING:
    import torch

FORMAT = "colibri-latents/1"
KEY = "colibri"
"""The one metadata key: safetensors writes several in no fixed order, and bytes have to repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentFile:
    """What a latent file holds."""

    latents: "dict[str, torch.Tensor]"
    """By row id; normalised, (..., channels, latent frames, rows, columns)."""
    codec: Codec
    vae_hash: str
    """`colibri.core.wan.decoder.hash_vae` of the VAE whose latents these are."""
    recipe: dict[str, Any]
    """What the writer wants to find again: prompt, seed, schedule."""


def write_latents(
    path: Path,
    latents: "Mapping[str, torch.Tensor]",
    *,
    codec: Codec,
    vae_hash: str,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write normalised latents, whole or not at all; same values in, same bytes out.

    Leading dimensions are free (a trajectory, a batch); the fourth from the end is channels.
    `recipe` has to be JSON-ready.
    """
    from safetensors.torch import save_file

    for name, tensor in latents.items():
        _check_channels(path, name, tuple(tensor.shape), codec)
    about = {
        "format": FORMAT,
        "space": "normalised",
        "dtype": {name: _dtype(latents[name]) for name in sorted(latents)},
        "codec": {"time": codec.time, "space": codec.space, "channels": codec.channels},
        "vae_hash": vae_hash,
        "recipe": dict(recipe or {}),
    }
    tensors = {name: latents[name].detach().cpu().contiguous() for name in sorted(latents)}
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, metadata={KEY: text})
        temporary.chmod(0o644)  # safetensors writes for the owner alone

    write_whole(path, write)


def read_latents(
    path: Path, *, vae_hash: str | None = None, codec: Codec | None = None
) -> LatentFile:
    """Read a latent file onto the CPU.

    UserError in one sentence: missing, damaged, of another kind, or of another VAE than
    `vae_hash` or another `codec`, where these are given.
    """
    from safetensors.torch import load_file

    about = _about(path)
    try:
        found = Codec(**about["codec"])
        vae = str(about["vae_hash"])
        recipe = dict(about["recipe"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has a damaged header") from None
    if codec is not None and found != codec:
        raise UserError(f"{path} holds latents of {_say(found)}, but this model has {_say(codec)}")
    if vae_hash is not None and vae != vae_hash:
        raise UserError(
            f"{path} was encoded by another VAE ({vae[:12]}, this one is {vae_hash[:12]})",
            hint="encode it again",
        )
    latents = load_file(path)
    for name, tensor in latents.items():
        _check_channels(path, name, tuple(tensor.shape), found)
    return LatentFile(latents=latents, codec=found, vae_hash=vae, recipe=recipe)


def check_safetensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file whose bytes are all there, at the cost of its header.

    UserError in one sentence for a missing, cut or foreign file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            # safetensors allows headers up to 100 MB
            header = json.loads(file.read(length)) if 2 <= length <= 100_000_000 else None
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        header = None
        if length > size - 8:
            raise UserError(f"{path} is cut off in its header", hint="get it again") from None
    if not isinstance(header, dict):
        raise UserError(f"{path} is not a safetensors file")
    try:
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path} is not a safetensors file") from None
    if size != expected:
        kind = "is cut off" if size < expected else "has bytes too many"
        raise UserError(
            f"{path} {kind} ({size:,} of {expected:,} bytes)", hint="get or write it again"
        )
    return header


def _about(path: Path) -> dict[str, Any]:
    metadata = check_safetensors(path).get("__metadata__") or {}
    try:
        about = json.loads(metadata[KEY])
        kind = about["format"]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} is a safetensors file, but not one of latents", hint=f"expected {FORMAT}"
        ) from None
    if kind != FORMAT:
        raise UserError(f"{path} is of the form {kind!r}, this version reads {FORMAT!r}")
    return dict(about)


def _check_channels(path: Path, name: str, shape: tuple[int, ...], codec: Codec) -> None:
    if len(shape) < 4 or shape[-4] != codec.channels:
        raise UserError(
            f"{path}: latents {name!r} of shape {shape} do not have the {codec.channels} channels "
            "of their codec"
        )


def _dtype(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _say(codec: Codec) -> str:
    return f"{codec.time}x{codec.space}x{codec.space} with {codec.channels} channels"
