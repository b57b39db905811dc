"""How a long clip changes with time, and at its blocks' edges, from its frames alone.

Learns nothing and knows nothing of what was asked: `testbed.score` reads that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""(frames, height, width, 3) RGB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """A window of a clip against the clip's first window; no drift is 0, 1 and 0."""

    colour: float
    """Mean change of the channels' means and deviations, in levels of 255: exposure, saturation."""
    sharpness: float
    """Mean edge strength over that of the first window: style, blur."""
    scene: float
    """Mean change of what stands still (each pixel's median over the window), in levels of 255."""


def windows(video: Frames, length: int) -> list[Frames]:
    """The clip in windows of `length` frames; each begins with the last frame of the one before.

    Frames after the last whole window are left out.
    """
    return [
        video[start : start + length] for start in range(0, len(video) - length + 1, length - 1)
    ]


def drift(video: Frames, length: int) -> list[Drift]:
    """Each window against the first."""
    parts = [window.astype(np.float32) for window in windows(video, length)]
    first = _signs(parts[0])
    found = []
    for part in parts:
        colour, edges, still = _signs(part)
        found.append(
            Drift(
                colour=float(np.abs(colour - first[0]).mean()),
                sharpness=edges / max(first[1], 1e-6),
                scene=float(np.abs(still - first[2]).mean()),
            )
        )
    return found


def seam(video: Frames, edges: Sequence[int], others: Sequence[int]) -> float:
    """How much more changes where two blocks meet than elsewhere: 1 where no seam is to be seen.

    `edges` are the first frames of blocks, `others` frames to compare with, as first frames of
    latents inside blocks; the change is from the frame before, as a mean over the picture.
    """
    changes = np.abs(np.diff(video.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    at, beside = (changes[[frame - 1 for frame in frames]].mean() for frames in (edges, others))
    return float(at / max(beside, 1e-6))


def _signs(window: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    colour = np.concatenate([window.mean(axis=(0, 1, 2)), window.std(axis=(0, 1, 2))])
    edges = sum(float(np.abs(np.diff(window, axis=axis)).mean()) for axis in (1, 2))
    return colour, edges, np.median(window, axis=0)
