"""From normalised latents to frames, stepping down when memory runs out.

whole: the VAE's own way. chunks: one latent frame at a time, each leaving the device at once; the
same frames bit for bit. tiles: parts of the picture, blended; nearly the same frames. cpu: chunks
on the CPU. A light decoder's frames are the same in every way, up to rounding.
"""

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from colibri.core.errors import UserError
from colibri.core.wan.family import ModelFamily

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.infer.light import Light

Frames = NDArray[np.uint8]  # (frames, height, width, 3), RGB
Say = Callable[[str], object]

STEPS_DOWN = ("whole", "chunks", "tiles", "cpu")
_SAID_LIGHT = "(the same frames, up to rounding)"
_SAID = {
    "chunks": "in chunks of one latent frame (the same frames)",
    "tiles": "in tiles (frames may differ slightly near their seams)",
    "cpu": "on the CPU (slow)",
}


def decode(
    vae: Any,
    latents_BCTHW: "Tensor",
    family: ModelFamily,
    *,
    mode: str = "auto",
    begin: str = "whole",
    say: Say,
    make_room: Callable[[], object] = lambda: None,
) -> tuple[Frames, str]:
    """Frames of one clip, and the mode in which they were made.

    `mode` other than auto is used alone; auto begins with `begin`. `make_room` is called before the
    first step down: it may move other weights off the device. UserError when memory runs out in
    every way.
    """
    ways: tuple[str, ...] = (mode,)
    if mode == "auto":
        ways = ways_down(vae, vae.device.type)
        ways = ways[ways.index(begin) :]
    raw = family.stats.unnormalise(latents_BCTHW.float())
    for index, way in enumerate(ways):
        if index:
            make_room()
            said = _SAID[way] if _light(vae) is None else f"in {way} {_SAID_LIGHT}"
            say(f"Memory ran out in decoding; trying again {said if way != 'cpu' else _SAID[way]}.")
        try:
            return _decode(vae, raw, way), way
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_memory()  # here, where the failed call's tensors are gone with its traceback
    tried = "every way of decoding" if mode == "auto" else f"decoding in the mode {mode!r}"
    raise UserError(f"memory ran out in {tried}")


def ways_down(vae: Any, device: str) -> tuple[str, ...]:
    """The ways that `vae` can be decoded with on a device, each with less memory than before."""
    light = _light(vae)
    ways: tuple[str, ...] = STEPS_DOWN if light is None else light.ways
    return ways[:-1] if device.startswith("cpu") else ways


def video_parts(vae: Any, raw_BCTHW: "Tensor", way: str) -> "Iterator[Tensor]":
    """Video (1, 3, frames, height, width) in [-1, 1] of un-normalised latents, part after part."""
    from colibri.core.wan.decoder import decode_stream

    if (light := _light(vae)) is not None:
        yield from light.parts(raw_BCTHW, way)
        return
    if way == "tiles":
        vae.enable_tiling()
    try:
        if way in ("whole", "tiles"):
            yield vae.decode(raw_BCTHW.to(vae.device, vae.dtype)).sample
        else:
            yield from decode_stream(vae, raw_BCTHW)
    finally:
        vae.disable_tiling()
        vae.clear_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """True for PyTorch's exhausted GPU or CPU memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Give freed GPU memory back to the driver."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _decode(vae: Any, raw_BCTHW: "Tensor", way: str) -> Frames:
    import torch

    from colibri.core.wan.decoder import to_frames

    home = vae.device
    if way == "cpu":
        vae.to("cpu")
    try:
        with torch.no_grad():
            frames = [to_frames(part)[0] for part in video_parts(vae, raw_BCTHW, way)]
            return frames[0] if len(frames) == 1 else np.concatenate(frames)
    finally:
        vae.to(home)


def _light(vae: Any) -> "Light | None":
    from colibri.infer.light import Light

    return vae if isinstance(vae, Light) else None
