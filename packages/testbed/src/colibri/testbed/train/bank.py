"""Clips of the small world rendered ahead into one .npy file, each from its own seed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colibri.core.errors import UserError
from colibri.testbed.small import FRAMES, PAIRS, SIDE, Part, small_clip, small_scene
from colibri.testbed.world import Scene


def bank_scene(
    seed: int, index: int, part: Part = "train", *, free: bool = True, pairs: float = PAIRS
) -> Scene:
    """The scene of one clip in a bank."""
    return small_scene(np.random.default_rng([seed, index]), part=part, free=free, pairs=pairs)


def open_bank(
    path: Path, *, count: int, seed: int, part: Part = "train", frames: int = FRAMES
) -> NDArray[np.uint8]:
    """(count, frames, 64, 64, 3) uint8, read from `path` or rendered into it first."""
    shape = (count, frames, SIDE, SIDE, 3)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        clips = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        for index in range(count):
            clips[index] = small_clip(bank_scene(seed, index, part), frames=frames)
        clips.flush()
        unfinished.rename(path)
    bank: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    if bank.shape != shape:
        raise UserError(
            f"{path} holds clips of shape {bank.shape}, expected {shape}",
            hint="delete it or name another folder",
        )
    return bank
