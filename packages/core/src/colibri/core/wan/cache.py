"""The keys and values that a causal student keeps of what it has made.

A sink of the clip's first frames for ever, and a ring of the latest. Keys are kept before their
rotation: their positions are given when they are read, so a clip may be of any length. A cache is
never changed: `extended` gives a new one, which is what activation checkpointing needs.
"""

# B batch  S tokens  N heads  D head width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.wan.family import Causal

Store = Literal["same", "int8", "fp8"]
"""`same`: in the model's dtype. Else one byte a number, with a scale a token and head."""

_LARGEST = {"int8": 127.0, "fp8": 448.0}
_DTYPE = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys or values (B, S, N, D) of one layer, as they are stored."""

    values_BSND: Tensor
    scale_BSN1: Tensor | None = None
    """Of one-byte storage, float32; None where values are stored as they are."""

    @classmethod
    def of(cls, values_BSND: Tensor, store: Store = "same") -> "Kept":
        """Stored; rounded to one byte where `store` says so."""
        if store == "same":
            return cls(values_BSND)
        if values_BSND.requires_grad:
            raise UserError(
                f"no gradient flows through a cache stored as {store}", hint="store it as same"
            )
        wide = values_BSND.float()
        scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / _LARGEST[store]
        small = wide / scale
        if store == "int8":
            small = small.round()
        return cls(small.to(_DTYPE[store]), scale)

    def read(self, like: Tensor) -> Tensor:
        """(B, S, N, D) in the dtype of `like`."""
        if self.scale_BSN1 is None:
            return self.values_BSND.to(like.dtype)
        return (self.values_BSND.float() * self.scale_BSN1).to(like.dtype)

    def joined(self, later: "Kept") -> "Kept":
        """With the tokens of `later` behind."""
        scales = (self.scale_BSN1, later.scale_BSN1)
        scale = None if scales[0] is None or scales[1] is None else torch.cat(scales, dim=1)  # type: ignore[arg-type]
        return Kept(_cat(self.values_BSND, later.values_BSND), scale)

    def without(self, start: int, end: int) -> "Kept":
        """Tokens `start` to `end` taken out; a copy, so that theirs can be freed."""

        def cut(x: Tensor) -> Tensor:
            return _cat(x[:, :start], x[:, end:])

        return Kept(
            cut(self.values_BSND), None if self.scale_BSN1 is None else cut(self.scale_BSN1)
        )

    @property
    def nbytes(self) -> int:
        """Of the values and their scales."""
        return self.values_BSND.nbytes + (0 if self.scale_BSN1 is None else self.scale_BSN1.nbytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class KVCache:
    """Keys and values of every layer: of the sink and of the latest frames. Immutable."""

    causal: Causal
    store: Store = "same"
    frames: int = 0
    """Latent frames that went through it: where the next block starts."""
    tokens: int = 0
    """Tokens a latent frame."""
    layers: tuple[tuple[Kept, Kept], ...] = ()
    """(keys before rotation, values) of each layer, oldest tokens first, the sink before all."""

    @property
    def held(self) -> int:
        """Latent frames that are in it."""
        return self.layers[0][0].values_BSND.shape[1] // self.tokens if self.layers else 0

    @property
    def nbytes(self) -> int:
        """Memory of all layers."""
        return sum(kept.nbytes for layer in self.layers for kept in layer)

    def extended(self, layers: Sequence[tuple[Tensor, Tensor]], *, tokens: int) -> "KVCache":
        """A cache with a block's keys (before rotation) and values (B, S, N, D) of every layer.

        What no later block can see is left out. `tokens` is that of a latent frame.
        """
        assert not self.layers or (len(layers), tokens) == (len(self.layers), self.tokens)
        new = tuple((Kept.of(k, self.store), Kept.of(v, self.store)) for k, v in layers)
        added = layers[0][0].shape[1] // tokens
        held, frames = self.held + added, self.frames + added
        if self.layers:
            new = tuple(
                (keys.joined(k), values.joined(v))
                for (keys, values), (k, v) in zip(self.layers, new, strict=True)
            )
        surplus = self._surplus(held, frames)
        if surplus > 0:
            start = self.causal.sink * tokens
            end = start + surplus * tokens
            new = tuple((k.without(start, end), v.without(start, end)) for k, v in new)
        return replace(self, frames=frames, tokens=tokens, layers=new)

    def state(self) -> dict[str, Tensor]:
        """All of it as tensors by name, for a file that a killed run goes on from."""
        named = {"frames": torch.tensor([self.frames, self.tokens])}
        for index, layer in enumerate(self.layers):
            for name, kept in zip(("keys", "values"), layer, strict=True):
                named[f"{index:03}.{name}"] = _bytes(kept.values_BSND)
                if kept.scale_BSN1 is not None:
                    named[f"{index:03}.{name}.scale"] = kept.scale_BSN1
        return named

    def restored(self, state: Mapping[str, Tensor]) -> "KVCache":
        """The cache that `state` was taken from; this one says its causal form and storage.

        UserError where the tensors are not of such a cache.
        """

        def kept(name: str) -> Kept:
            values, scale = state[name], state.get(f"{name}.scale")
            small = {torch.int8: "int8", torch.uint8: "fp8"}.get(values.dtype, "same")
            if small != self.store or (scale is None) != (self.store == "same"):
                raise KeyError(name)
            return Kept(values.view(_DTYPE["fp8"]) if small == "fp8" else values, scale)

        try:
            frames, tokens = state["frames"].tolist()
            count = len([name for name in state if name.endswith(".keys")])
            layers = tuple((kept(f"{i:03}.keys"), kept(f"{i:03}.values")) for i in range(count))
        except (KeyError, ValueError):
            raise UserError(
                f"the saved state is not that of a causal cache stored as {self.store}"
            ) from None
        return replace(self, frames=frames, tokens=tokens, layers=layers)

    def _surplus(self, held: int, frames: int) -> int:
        """Frames behind the sink that no later block sees."""
        if self.causal.window is None:
            return 0
        oldest = frames + self.causal.block - self.causal.window
        after_sink = held - min(frames, self.causal.sink)
        return after_sink - (frames - max(oldest, self.causal.sink)) if oldest > 0 else 0


def _cat(first: Tensor, second: Tensor) -> Tensor:
    if first.dtype == torch.float8_e4m3fn:  # not every backend joins these
        return torch.cat([first.view(torch.uint8), second.view(torch.uint8)], dim=1).view(
            torch.float8_e4m3fn
        )
    return torch.cat([first, second], dim=1)


def _bytes(values: Tensor) -> Tensor:
    return values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values
