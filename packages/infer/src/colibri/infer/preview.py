"""Rough pictures of a video while it is being denoised: a linear map from latents to colours.

The map is fitted to the VAE at hand, by least squares on a few encoded patches of colour, once for
each VAE on this machine: no decoding, and no table of constants for every family.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colibri.core import wan
from colibri.infer.decode import Say, is_out_of_memory
from colibri.infer.hashes import remembered
from colibri.infer.image import Frame, write_png

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.sampler import Step

# C channels  T latent frames  H W latent rows, columns

CLIPS = 6
"""Clips that the map is fitted to."""
SIDE = 8
"""Their height and width in latents."""
TILES = 4
"""Moments of the video in one picture, first and last among them."""
HEIGHT = 160
"""Of the picture in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentColours:
    """Colour in [0, 1] = normalised latent @ matrix + bias."""

    matrix_CK: NDArray[np.float64]
    """(channels, 3): to red, green and blue."""
    bias_K: NDArray[np.float64]

    def frames(self, latents_BCTHW: "Tensor") -> NDArray[np.uint8]:
        """The first clip of normalised latents as uint8 (T, H, W, 3), a pixel a latent."""
        latents_THWC = latents_BCTHW[0].permute(1, 2, 3, 0).double().cpu().numpy()
        unit = np.clip(latents_THWC @ self.matrix_CK + self.bias_K, 0, 1)
        return np.asarray(np.round(unit * 255), np.uint8)


class Previewer:
    """Writes a picture of the current estimate every so many steps. A failure ends it, said once.

    For `denoise`'s `on_step`; the frames of the video are the same with and without it.
    """

    def __init__(self, model: wan.WanModel, path: Path, every: int, *, say: Say) -> None:
        self._model, self._path, self._every, self._say = model, path, every, say
        self._colours: LatentColours | None = None

    def __call__(self, step: "Step") -> Path | None:
        """The picture's path where there is a new one."""
        if not self._every or (step.index + 1) % self._every:
            return None
        try:
            if self._colours is None:
                self._colours = colours_of(self._model)
            write_png(self._path, picture(self._colours.frames(step.x0_BCTHW)))
        except (OSError, MemoryError, RuntimeError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            why = getattr(error, "strerror", None) or "memory ran out"
            self._say(f"No preview: {why}.")
            self._every = 0
            return None
        return self._path


def picture(frames: NDArray[np.uint8]) -> Frame:
    """Some of the frames (T, H, W, 3) side by side, enlarged to `HEIGHT` pixels."""
    chosen = sorted({round(i) for i in np.linspace(0, len(frames) - 1, TILES)})
    width = max(1, round(HEIGHT * frames.shape[2] / frames.shape[1]))
    tiles = [
        np.asarray(Image.fromarray(frames[i]).resize((width, HEIGHT), Image.Resampling.BICUBIC))
        for i in chosen
    ]
    return np.concatenate(tiles, axis=1)


def colours_of(model: wan.WanModel) -> LatentColours:
    """The map of a model's VAE, kept in the cache folder by the VAE's hash."""

    def fitted() -> str:
        found = fit_colours(_encoder(model), model.family.codec.time, model.family.codec.space)
        return json.dumps([found.matrix_CK.tolist(), found.bias_K.tolist()])

    matrix, bias = json.loads(remembered(["latent colours", 1, model.vae_hash], fitted))
    return LatentColours(matrix_CK=np.array(matrix), bias_K=np.array(bias))


def fit_colours(
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float64]], time: int, space: int
) -> LatentColours:
    """Ridge regression of a latent's mean colour on its channels.

    `encode` takes (1 + time, height, width, 3) uint8 and gives normalised latents (C, 2, H, W), a
    latent for `space` x `space` pixels.
    """
    rows, colours = [], []
    rng = np.random.default_rng(0)
    for _ in range(CLIPS):
        clip = _moving_colours(rng, 1 + time, SIDE * space)
        rows.append(np.moveaxis(encode(clip), 0, -1).reshape(2 * SIDE * SIDE, -1))
        pooled = clip.reshape(1 + time, SIDE, space, SIDE, space, 3).mean((2, 4)) / 255
        colours.append(np.stack([pooled[0], pooled[1:].mean(0)]).reshape(-1, 3))
    x, y = np.concatenate(rows), np.concatenate(colours)
    mean_x, mean_y = x.mean(0), y.mean(0)
    square = (x - mean_x).T @ (x - mean_x)
    square += 1e-4 * len(x) * np.eye(len(square))
    matrix = np.linalg.solve(square, (x - mean_x).T @ (y - mean_y))
    return LatentColours(matrix_CK=matrix, bias_K=mean_y - mean_x @ matrix)


def _moving_colours(rng: np.random.Generator, frames: int, side: int) -> NDArray[np.uint8]:
    """Soft patches of every colour that drift to one side, (frames, side, side, 3)."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    margin = frames * max(1, side // 32)
    field = np.asarray(coarse.resize((side + margin, side), Image.Resampling.BILINEAR))
    starts = [margin * index // frames for index in range(frames)]
    return np.stack([field[:, start : start + side] for start in starts])


def _encoder(model: wan.WanModel) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    from colibri.core.wan.decoder import encode_video, to_pixels

    vae: Any = model.vae

    def encode(clip: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(encode_video(vae, to_pixels(clip))[0].double().cpu().numpy())

    return encode
