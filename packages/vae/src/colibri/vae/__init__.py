"""Light decoders for a frozen Wan VAE. Importing this needs no torch, using it does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colibri.vae.decode import VideoDecoder

__all__ = ["load_decoder"]


def load_decoder(folder: str | Path, **options: Any) -> "VideoDecoder":
    """A decoder from a folder; `.decode(latents)` takes un-normalised latents (B, C, T, H, W) and
    gives unclamped video (B, 3, F, rows, columns). Options: teacher, device, dtype.

    Loads light decoders, the Turbo-VAED family, TAEHV's `taew2_1` and `taew2_2`, and Wan's own VAE.
    """
    from colibri.vae.load import load_decoder as load

    return load(folder, **options)
