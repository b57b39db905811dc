"""What decoding a clip holds at its fullest, counted on the meta device. No memory is used."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from colibri.core import wan
from colibri.core.geometry import LatentShape
from colibri.core.wan.decoder import decode_stream
from colibri.core.wan.family import ModelFamily

ALIKE = 3
"""Latent frames after which a stream holds no more."""


def decoding_bytes(family: ModelFamily, shape: LatentShape) -> int:
    """Of one clip in float32 by the model's VAE, part after part: its weights and what it makes."""
    vae = wan.build_meta(family, "vae").float()
    frames = min(shape.frames, ALIKE)
    size = (1, shape.channels, frames, shape.height, shape.width)
    with _Alive() as alive:
        for _ in decode_stream(vae, torch.empty(size, device="meta")):
            pass
    return alive.most + sum(weight.nbytes for weight in vae.parameters())


class _Alive(TorchDispatchMode):
    """Bytes of storages that are made inside and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and _key(one) not in given | self._known:
                storage = one.untyped_storage()
                self._known.add(_key(one))
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._free, _key(one), storage.nbytes())
        return result

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
