"""The code that the tiny autoencoder learns: principal components of 8x8 blocks of four frames.

A linear code is known before any training, so encoder, decoder and video model learn side by side
instead of one after the other. The first frame, which the Wan layout codes alone, has components of
its own, turned to agree with the others where a block stands still.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SPACE = 8
TIME = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearCode:
    """Two affine maps from blocks to codes and back. Pixels in [-1, 1]."""

    first_mean: Array
    """(192,)"""
    first_to_code: Array
    """(192, channels)"""
    first_to_pixels: Array
    """(channels, 192)"""
    mean: Array
    """(768,)"""
    to_code: Array
    """(768, channels)"""
    to_pixels: Array
    """(channels, 768)"""

    def encode(self, clips: NDArray[np.uint8]) -> Array:
        """(B, 4k + 1, H, W, 3) uint8 to codes (B, channels, k + 1, H / 8, W / 8)."""
        x = clips.astype(np.float32) / 127.5 - 1
        first = (_blocks(x[:, :1], 1) - self.first_mean) @ self.first_to_code
        rest = (_blocks(x[:, 1:], TIME) - self.mean) @ self.to_code
        return np.concatenate([first, rest], 1).transpose(0, 4, 1, 2, 3)

    def decode(self, codes: Array) -> NDArray[np.uint8]:
        """The best linear reconstruction of (B, channels, k + 1, h, w)."""
        z = codes.transpose(0, 2, 3, 4, 1)
        first = _unblocked(z[:, :1] @ self.first_to_pixels + self.first_mean, 1)
        rest = _unblocked(z[:, 1:] @ self.to_pixels + self.mean, TIME)
        x = np.concatenate([first, rest], 1)
        return np.clip((x + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def fit_code(clips: NDArray[np.uint8], *, channels: int, seed: int) -> LinearCode:
    """Components of these clips; each code channel has about unit variance.

    Standard deviations are flattened to their square roots and then mixed by a rotation: coarse
    parts stay larger than fine ones, as in a learnt latent space, but no channel is idle.
    """
    x = clips.astype(np.float32) / 127.5 - 1
    mean, basis, spread = _components(_blocks(x[:, 1:], TIME), channels)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((channels, channels)))[0].astype(np.float32)
    to_code, to_pixels = _scaled(basis, spread, turn)

    pictures = _blocks(x.reshape(-1, 1, *x.shape[2:])[:: x.shape[1] // 3], 1)
    first_mean, first_basis, first_spread = _components(pictures, channels)
    flat = pictures.reshape(-1, pictures.shape[-1])[::7] - first_mean
    alone, _ = _scaled(first_basis, first_spread, np.eye(channels, dtype=np.float32))
    standing = (np.tile(flat + first_mean, (1, TIME)) - mean) @ to_code
    u, _, v = np.linalg.svd((flat @ alone).T @ standing)
    first_to_code, first_to_pixels = _scaled(first_basis, first_spread, (u @ v).astype(np.float32))
    return LinearCode(
        first_mean=first_mean,
        first_to_code=first_to_code,
        first_to_pixels=first_to_pixels,
        mean=mean,
        to_code=to_code,
        to_pixels=to_pixels,
    )


def _components(blocks: Array, channels: int) -> tuple[Array, Array, Array]:
    flat = blocks.reshape(-1, blocks.shape[-1])
    mean = flat.mean(0)
    flat = flat - mean
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    best = slice(-1, -channels - 1, -1)
    return mean, vectors[:, best].astype(np.float32), np.sqrt(values[best]).astype(np.float32)


def _scaled(basis: Array, spread: Array, turn: Array) -> tuple[Array, Array]:
    weight = spread**-0.5
    weight /= np.sqrt(np.mean((spread * weight) ** 2))
    return (basis * weight) @ turn, turn.T @ (basis / weight).T


def _blocks(x: Array, time: int) -> Array:
    """(B, T, H, W, 3) as (B, T / time, H / 8, W / 8, numbers in a block)."""
    b, t, h, w, c = x.shape
    cut = x.reshape(b, t // time, time, h // SPACE, SPACE, w // SPACE, SPACE, c)
    return cut.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, t // time, h // SPACE, w // SPACE, -1)


def _unblocked(blocks: Array, time: int) -> Array:
    b, t, h, w, _ = blocks.shape
    cut = blocks.reshape(b, t, h, w, time, SPACE, SPACE, 3).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return cut.reshape(b, t * time, h * SPACE, w * SPACE, 3)
